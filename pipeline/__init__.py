"""A competition pipeline for images judged by AUC: one script a stage, one artifact a stage.

prepare     images.csv, images/<size>/           predict     predictions.csv of every fold
folds       folds.csv                            member      predictions.csv from elsewhere
pretrain    pretrained.safetensors               ensemble    ensemble.csv, scores.csv
finetune    finetuned.safetensors                submit      the organiser's file, checked
metadata    predictions.csv of patient columns   report      report.html

todo        what a stage has still to make       forget      removes runs, to make them again
score       a file against its truth             summary     the demo's closing table

competitions/   all that is true of one competition
core/           the rooms that stages share
deploy/         Kaggle and CodaLab, and their rehearsals
paper/          the paper's tables and figures
demo/           synthetic downloads
"""
