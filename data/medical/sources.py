"""Where the medical data sets come from."""

from __future__ import annotations

from ..sources import RemoteFile, Source

SYNTHETIC_VOLUMES = Source(
    title="Balls in noise, of MONAI's generator",
    homepage="https://docs.monai.io/en/stable/data.html",
    citation="M. J. Cardoso et al.: MONAI, arXiv:2211.02701, 2022",
    licence="Apache 2.0 (the generator)",
    protocol="each part's volumes are made from data.data_seed; no volume is in two parts",
)

SYNTHETIC_CLASSES = Source(
    title="Few or many balls in noise, of MONAI's generator",
    homepage=SYNTHETIC_VOLUMES.homepage,
    citation=SYNTHETIC_VOLUMES.citation,
    licence=SYNTHETIC_VOLUMES.licence,
    protocol=SYNTHETIC_VOLUMES.protocol,
)

NIFTI_FOLDER = Source(
    title="Images and labels in the user's own folders",
    homepage="",
    citation="",
    licence="the user's own",
    protocol="test: imagesTs and labelsTs where they are there, else a fold by a hash of the names; or the user's own division",
)

HIPPOCAMPUS = Source(
    title="Medical Segmentation Decathlon, task 4: hippocampus (the 260 training volumes)",
    homepage="http://medicaldecathlon.com",
    citation="M. Antonelli et al.: The Medical Segmentation Decathlon, Nature Communications 13, 2022",
    licence="CC BY-SA 4.0",
    protocol="the official test labels are not public: 5 folds of the training volumes by a hash of their names",
    folder="medical/msd_task04_hippocampus",
)

# of each task's archive, as MONAI's DecathlonDataset has it
_DECATHLON_MD5 = {
    "Task01_BrainTumour": "240a19d752f0d9e9101544901065d872",
    "Task02_Heart": "06ee59366e1e5124267b774dbd654057",
    "Task03_Liver": "a90ec6c4aa7f6a3d087205e23d4e6397",
    "Task04_Hippocampus": "9d24dba78a72977dbd1d2e110310f31b",
    "Task05_Prostate": "35138f08b1efaef89d7424d2bcc928db",
    "Task06_Lung": "8afd997733c7fc0432f71255ba4e52dc",
    "Task07_Pancreas": "4f7080cfca169fa8066d17ce6eb061e4",
    "Task08_HepaticVessel": "641d79e80ec66453921d997fbf12a29c",
    "Task09_Spleen": "410d4a301da4e5b2f6f86ec3ddba524e",
    "Task10_Colon": "bad7a188931dc2f6acf72b08eb6202d0",
}

DECATHLON = Source(
    title="Medical Segmentation Decathlon (the labelled volumes of one of its tasks)",
    homepage=HIPPOCAMPUS.homepage,
    citation=HIPPOCAMPUS.citation,
    licence=HIPPOCAMPUS.licence,
    protocol="the official test labels are not public: 5 folds of the training volumes by a hash of their names",
    folder="medical/decathlon",
    files=tuple(
        RemoteFile(f"{name}.tar", (f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{name}.tar",), md5=md5)
        for name, md5 in _DECATHLON_MD5.items()
    ),
)

PNEUMONIA_MNIST = Source(
    title="PneumoniaMNIST (MedMNIST v2), 28x28",
    homepage="https://medmnist.com",
    citation="J. Yang et al.: MedMNIST v2, Scientific Data 10, 2023; D. S. Kermany et al., Cell 172, 2018",
    licence="CC BY 4.0",
    protocol="4,708 training, 524 validation and 624 test images as published",
    folder="medical/pneumoniamnist",
    files=(
        RemoteFile(
            "pneumoniamnist.npz",
            ("https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1",),
            md5="28209eda62fecd6e6a2d98b1501bb15f",
        ),
    ),
)

EM_MEMBRANE = Source(
    title="ISBI 2012 challenge, segmentation of neuronal structures in EM stacks (the 30 training sections)",
    homepage="https://imagej.net/events/isbi-2012-segmentation-challenge",
    citation="A. Cardona et al.: PLoS Biology 8(10), 2010; I. Arganda-Carreras et al.: Frontiers in Neuroanatomy 9, 2015",
    licence="free for research",
    protocol="the challenge's test labels are hidden: five blocks of six neighbouring training sections, one of them tested",
    folder="medical/isbi2012_em_membrane",
    content=(
        ("train_images.npy", "268fcbcf2e0b46ab1b0ce544ade818ab72fcbe7fa5a4ecb60393486b9909423c"),
        ("train_labels.npy", "ad456d346fcdce86f54971889f2d02827d1d7ac12ab159d6027c91a4e032c78b"),
    ),
)

CHASE_DB1 = Source(
    title="CHASE_DB1, retinal vessels",
    homepage="https://blogs.kingston.ac.uk/retinal/chasedb1/",
    citation="M. M. Fraz et al.: IEEE Transactions on Biomedical Engineering 59(9), 2012",
    licence="CC BY 4.0",
    protocol="images 01L to 10R for training (10L and 10R for validation), 11L to 14R for the test; the first observer's labels",
    folder="medical/chase_db1",
)
