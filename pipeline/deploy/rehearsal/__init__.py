"""The package run here as it will run there: no network, few packages, its scores compared with
those made at home.

codalab and kaggle are the programs; isolation makes their surroundings, memory measures, compare
judges.
"""
