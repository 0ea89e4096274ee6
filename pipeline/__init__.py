"""A competition pipeline for images judged by AUC: one script a stage, one artifact a stage.

prepare     images.csv, images/<size>/              predict     predictions.csv of every fold
folds       folds.csv                               ensemble    ensemble.csv, scores.csv
pretrain    pretrained.safetensors                  submit      submissions/<comp>/<the organiser's file>
finetune    finetuned.safetensors                   report      submissions/<comp>/report.html
metadata    predictions.csv of patient columns      todo        what a stage has still to make

competitions/   all that is true of one competition     deploy/   Kaggle and CodaLab, and their rehearsals
core/           the rooms that stages share             paper/    the paper's tables and figures
demo/           synthetic downloads
"""
