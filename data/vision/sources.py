"""Where the data sets of images come from."""

from __future__ import annotations

from ..sources import RemoteFile, Source

DIGITS = Source(
    title="Optical recognition of handwritten digits, 8x8 (the copy in scikit-learn)",
    homepage="https://archive.ics.uci.edu/dataset/80",
    citation="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998",
    licence="CC BY 4.0",
    protocol="1,797 images; no official split in this copy: fixed, stratified, 70% / 10% / 20% by a seeded hash",
    content=(("digits.csv", "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"),),
)


def _fashion_mnist_file(name: str, sha256: str, size: int) -> RemoteFile:
    mirrors = (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    return RemoteFile(name, tuple(mirror + name for mirror in mirrors), sha256, size)


FASHION_MNIST = Source(
    title="Fashion-MNIST",
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    citation="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv:1708.07747, 2017",
    licence="MIT",
    protocol="60,000 training and 10,000 test images as published; validation images are taken out of the training images",
    folder="vision/fashion_mnist",
    files=(
        _fashion_mnist_file(
            "train-images-idx3-ubyte.gz",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            26_421_880,
        ),
        _fashion_mnist_file(
            "train-labels-idx1-ubyte.gz",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            29_515,
        ),
        _fashion_mnist_file(
            "t10k-images-idx3-ubyte.gz",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            4_422_102,
        ),
        _fashion_mnist_file(
            "t10k-labels-idx1-ubyte.gz",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            5_148,
        ),
    ),
    content=(
        ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
)


CIFAR10 = Source(
    title="CIFAR-10",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    citation="A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
    licence="none stated",
    protocol="50,000 training and 10,000 test images as published; validation images are taken out of the training images",
    folder="vision/cifar10",
    files=(
        RemoteFile(
            "cifar-10-binary.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
        ),
    ),
    content=(
        ("cifar-10-python.tar.gz", "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
        ("data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
        ("data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
        ("data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
        ("data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
        ("data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
        ("test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
    ),
)


CIFAR10_SUBSET = Source(
    title="CIFAR-10, the first 4,000 training and 1,000 test images",
    homepage=CIFAR10.homepage,
    citation=CIFAR10.citation,
    licence=CIFAR10.licence,
    protocol="a SUBSET in official order: published CIFAR-10 numbers do not apply; validation images are taken out of the 4,000",
    folder="vision/cifar10_subset",
    content=(
        ("x_train.npy", "220030772d1cd9285ecfdd0a116d3b17bd049ff30ede229d425d1aadb52e56aa"),
        ("y_train.npy", "0312fd4bf4dd7d62aea1c36bc19cb82e4de4f2e4bb79872256f231093df98884"),
        ("x_test.npy", "5521befa467e8a988581541644bd8c7565f051c0aaab75870eaa53253a42b075"),
        ("y_test.npy", "6988dd2f6284b6f7aedd9bd0d908439f0a7edff3776195add3af3aa053ea8ed3"),
    ),
)


IMAGE_FOLDER = Source(
    title="Images in the user's own folders",
    homepage="",
    citation="",
    licence="the user's own",
    protocol="folders train, val, test where they exist; otherwise a fixed, stratified split by a hash of each file's path",
)

WEBDATASET = Source(
    title="Images in the user's own WebDataset shards",
    homepage="https://github.com/webdataset/webdataset",
    citation="",
    licence="the user's own",
    protocol="shards for train, val, test where their names say so; otherwise a fixed, stratified split by a hash of each position",
)


SOLIDS = Source(
    title="Points on the surfaces of ten kinds of solids",
    homepage="",
    citation="",
    licence="none needed: computed",
    protocol="each part's clouds are made from data.data_seed; no cloud is in two parts",
)

MODELNET10 = Source(
    title="ModelNet10, 256 points of each surface",
    homepage="https://modelnet.cs.princeton.edu",
    citation="Z. Wu et al.: 3D ShapeNets, CVPR 2015",
    licence="academic research; the CAD models belong to their authors",
    protocol="3,991 training and 908 test clouds as published; validation clouds are taken out of the training clouds",
    folder="point_clouds/modelnet10_256pts",
    content=(
        ("train_points_u16.npy", "80fb8800e49b28bcae51ce4f14b91b5748b7d3dcdb24cfef1af3ebd005e7d97e"),
        ("train_offset_scale.npy", "32af21592ebb0ea80d0660cfde76fb32d2378d76395d146275e7ce856a194fd9"),
        ("train_labels.npy", "ac75acd03c331c17fe8eada4f9bb2dac85f56a9b47f0654d91d5f3b4cc2fa351"),
        ("test_points_u16.npy", "83abf515993e01f2f08bec0c796541dd2d8f18e7e1f4ac8f8bc0abbe32e04699"),
        ("test_offset_scale.npy", "01f82252b191b66fb7317e0e9c4d044e56ca63fcba9b481dbddbc3c91de61483"),
        ("test_labels.npy", "98a7f66138616f9ed1165436130c156b9e3cf939869a1870dda149cc90256da1"),
    ),
)

GRAPH_MOTIFS = Source(
    title="Random trees with a motif",
    homepage="",
    citation="",
    licence="none needed: computed",
    protocol="each part's graphs are made from data.data_seed; no graph is in two parts",
)

TU = Source(
    title="TU data sets",
    homepage="https://chrsmrrs.github.io/datasets",
    citation="C. Morris et al.: TUDataset, arXiv:2007.08663, 2020",
    licence="none stated",
    protocol="ten folds as in the repository of DGCNN; validation graphs are taken out of the nine that are not tested",
    folder="graphs/TU",
    content=(
        ("MUTAG.txt", "5897dae243f6c773aab54ec99e86551c3b1e8601acef254714073042c632d30e"),
        ("MUTAG/10fold_idx.json", "8911fd71159ded5346260868b90563a44e8e431584bea728811d27146c7aa504"),
        ("PTC.txt", "711729eaf2a5308752aa7c11062dd99f645f978afc400909a5927051b314ec55"),
        ("PTC/10fold_idx.json", "069e82b2a1852d31c7a02e67d77710b04754207bd6fca2707fb9f655d0de99e1"),
        ("ENZYMES.txt", "04e048844018a0f9c87afdc0d69031c4b625bb97d40320b9dbd76acc663f41a6"),
        ("ENZYMES/10fold_idx.json", "6be48bcbcc1c4ca2eee56d7ef2855b1d2aa447b2428155d60511f794344b8b66"),
        ("PROTEINS.txt", "ed0730f9bf9da68aa6a8c80f2f2b6ecea5d05791ca254c709f3efab3b45d937b"),
        ("PROTEINS/10fold_idx.json", "4d86f5f38be93ff9153e4162084df64dbcc067d4743fe8321af3b896c35be5cf"),
        ("NCI1.txt", "415d2e0861484c2baef1e40ee3ca62dd13c06d6b99549fb25774f43533e9321d"),
        ("NCI1/10fold_idx.json", "713e48356d9ca21411d8483463cc80393367c6c3cabb2e0c1914c6780f6f18af"),
        ("IMDBBINARY.txt", "1068c698677c07c04f3ad56fc4a175cb2161523c840abfdaf50e101ecc30504f"),
        ("IMDBBINARY/10fold_idx.json", "c72889cf274f691d3d2faed55846c0cd4a09ec3af1081e51a68b7c5131c96317"),
    ),
)

DRAWN_SHAPES = Source(
    title="Scenes of coloured shapes",
    homepage="",
    citation="",
    licence="none needed: computed",
    protocol="each part's scenes are made from data.data_seed; no scene is in two parts",
)

DRAWN_BANDS = Source(
    title="Scenes of four bands from above",
    homepage="",
    citation="",
    licence="none needed: computed",
    protocol="each part's scenes are made from data.data_seed; what is sharpened is made of them by Wald's protocol",
)

BANDS_FOLDER = Source(
    title="Images of several bands in the user's own folder",
    homepage="",
    citation="",
    licence="the user's own",
    protocol="folders train, val, test where they exist; otherwise a fixed split by a hash; Wald's protocol",
)

MASK_FOLDER = Source(
    title="Images and masks in the user's own folders",
    homepage="",
    citation="",
    licence="the user's own",
    protocol="folders train, val, test where they exist; otherwise a fixed split by a hash",
)

CHASE_DB1 = Source(
    title="CHASE_DB1, retinal vessels",
    homepage="https://researchdata.kingston.ac.uk/96",
    citation="M. M. Fraz et al.: An Ensemble Classification-Based Approach, IEEE Trans. Biomedical Engineering, 2012",
    licence="CC BY 4.0",
    protocol="28 images, the first observer's masks: 20 for training and validation, the last eight for testing",
    folder="medical/chase_db1",
)

EM_MEMBRANE = Source(
    title="ISBI 2012, membranes in electron microscope images",
    homepage="https://imagej.net/events/isbi-2012-segmentation-challenge",
    citation="I. Arganda-Carreras et al.: Crowdsourcing the creation of image segmentation algorithms, 2015",
    licence="free for research",
    protocol="the 30 images whose labels are public: the last six for testing",
    folder="medical/isbi2012_em_membrane",
    content=(
        ("train_images.npy", "268fcbcf2e0b46ab1b0ce544ade818ab72fcbe7fa5a4ecb60393486b9909423c"),
        ("train_labels.npy", "ad456d346fcdce86f54971889f2d02827d1d7ac12ab159d6027c91a4e032c78b"),
    ),
)

MOVING_SHAPES = Source(
    title="Shapes that move in eight ways",
    homepage="",
    citation="",
    licence="none needed: computed",
    protocol="each part's clips are made from data.data_seed; no clip is in two parts",
)

VIDEO_FOLDER = Source(
    title="Videos in the user's own folders",
    homepage="",
    citation="",
    licence="the user's own",
    protocol="folders train, val, test where they exist; otherwise a fixed, stratified division by a hash",
)
