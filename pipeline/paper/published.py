"""The paper's own numbers: test AUC as (mean, standard deviation over five training sets)."""

from pipeline.core.config.stages import STAGE_1, STAGE_2

# In the order of the paper's columns; the names are those of the pipeline's stages.
LOSS_NAMES = {"ce": STAGE_1, **{loss: STAGE_2[loss] for loss in ("focal", "aucs", "aucm")}}
DATASET_NAMES = {
    "cats_dogs": "Cat&Dog",
    "cifar10": "CIFAR-10",
    "stl10": "STL-10",
    "cifar100": "CIFAR-100",
}
NETWORK_NAMES = {"densenet121": "DenseNet121", "resnet20": "ResNet20"}
SHORT_NAMES = {
    "cats_dogs": "C2",
    "cifar10": "C10",
    "stl10": "S10",
    "cifar100": "C100",
    "densenet121": "D",
    "resnet20": "R",
}

EPOCHS = 100  # of every number of Tables 1 and 8
SEEDS = 5  # training sets

# CE, Focal, AUC-S, AUC-M, each (mean, standard deviation).
Row = tuple[tuple[float, float], ...]


def by_cell(**networks: dict[str, Row]) -> dict[tuple[str, str], Row]:
    """(data set, network) -> row, from network -> data set -> row."""
    cells = {}
    for network, rows in networks.items():
        for dataset, row in rows.items():
            cells[dataset, network] = row
    return cells


# imratio -> (data set, network) -> row
TABLE_1_AND_8 = {
    0.01: by_cell(
        densenet121={
            "cats_dogs": ((0.718, 0.018), (0.713, 0.009), (0.803, 0.018), (0.809, 0.016)),
            "cifar10": ((0.698, 0.017), (0.700, 0.007), (0.745, 0.010), (0.760, 0.006)),
            "stl10": ((0.641, 0.032), (0.660, 0.027), (0.669, 0.070), (0.703, 0.030)),
            "cifar100": ((0.588, 0.011), (0.591, 0.017), (0.607, 0.010), (0.614, 0.016)),
        },
        resnet20={
            "cats_dogs": ((0.730, 0.028), (0.724, 0.020), (0.748, 0.007), (0.756, 0.017)),
            "cifar10": ((0.690, 0.011), (0.681, 0.011), (0.702, 0.015), (0.715, 0.008)),
            "stl10": ((0.641, 0.021), (0.634, 0.024), (0.645, 0.029), (0.659, 0.020)),
            "cifar100": ((0.563, 0.015), (0.565, 0.022), (0.587, 0.017), (0.596, 0.016)),
        },
    ),
    0.1: by_cell(
        densenet121={
            "cats_dogs": ((0.893, 0.004), (0.879, 0.005), (0.901, 0.002), (0.902, 0.001)),
            "cifar10": ((0.898, 0.005), (0.879, 0.005), (0.889, 0.002), (0.887, 0.005)),
            "stl10": ((0.820, 0.015), (0.819, 0.010), (0.825, 0.013), (0.846, 0.015)),
            "cifar100": ((0.710, 0.007), (0.705, 0.007), (0.720, 0.003), (0.723, 0.006)),
        },
        resnet20={
            "cats_dogs": ((0.920, 0.004), (0.881, 0.008), (0.897, 0.007), (0.920, 0.006)),
            "cifar10": ((0.898, 0.004), (0.851, 0.018), (0.872, 0.007), (0.898, 0.005)),
            "stl10": ((0.825, 0.013), (0.813, 0.009), (0.819, 0.013), (0.821, 0.011)),
            "cifar100": ((0.669, 0.006), (0.666, 0.012), (0.686, 0.005), (0.695, 0.003)),
        },
    ),
}

# competition -> CE, Focal, AUC-S, AUC-M; one run each, without a deviation
TABLE_5 = {
    "ddsm": (0.9392, 0.9495, 0.9469, 0.9544),
    "patchcamelyon": (0.8394, 0.8556, 0.8703, 0.8896),
}
