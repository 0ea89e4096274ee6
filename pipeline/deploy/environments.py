"""The Python packages that each place holds, and those that a submission brings along.

Names are those of distributions, as pip knows them. Other names for the same library (OpenCV's two
builds) are listed side by side; a rehearsal takes the one that is installed.
"""

# The Docker image that a CodaLab bundle runs in, with the oldest torch that the code runs on
# (core/runtime/install.OLDEST), because old drivers take it; and what it holds of what is used.
CODALAB_IMAGE = "pytorch/pytorch:2.6.0-cuda12.4-cudnn9-runtime"
CODALAB_IMAGE_HOLDS = ("torch", "torchvision")

# What predicting imports beyond that; the bundle's Dockerfile installs it.
CODALAB_INSTALLS = (
    "timm",
    "opencv-python-headless",
    "pandas",
    "safetensors",
    "numba",
    "tqdm",
)
# What a rehearsal may import; of OpenCV's two builds it takes the one that is installed.
CODALAB = (*CODALAB_IMAGE_HOLDS, *CODALAB_INSTALLS, "opencv-python")

# What Kaggle's image holds of what is used here, and the notebook's own machinery.
KAGGLE = (
    "torch",
    "torchvision",
    "timm",
    "opencv-python-headless",
    "opencv-python",
    "pandas",
    "numpy",
    "scipy",
    "scikit-learn",
    "lightgbm",
    "safetensors",
    "tqdm",
    "numba",
    "h5py",
    "pydicom",
    "albumentations",
    "matplotlib",
    "ipykernel",
    "pip",
)

# Module -> distribution: what predicting and training import beyond what Kaggle's image is known to
# hold in every version. Their wheels travel in the dataset.
WHEELS = {
    "safetensors": "safetensors",
    "timm": "timm",
    "iterstrat": "iterative-stratification",
    "gdcm": "python-gdcm",
    "pylibjpeg": "pylibjpeg",
    "openjpeg": "pylibjpeg-openjpeg",
}
# Of these an older version may lack the network; timm is pure Python, so a newer one can be put
# before the image's own without harm.
AT_LEAST = ("timm",)
