"""What people type wrongly of images, their models and their classification."""

import pytest
from refusals import each, messages

OUT_OF_RANGE = {
    **each(["model.patch_size=0", "model.stride=0", "model.patch_size=-1"], ["1 to 65,536"]),
    **each(["model.depth=0", "model.depth=-1", "model.depth=1001", "model.depth=9223372036854775808"], ["1 to 1,000"]),
    **each(["model.embed_dim=0", "model.d_state=-4", "model.d_state=0"], ["at least 1"]),
    **each(["model.drop_path_rate=2", "model.drop_path_rate=1", "model.drop_path_rate=-0.1"], ["0 to below 1"]),
    "task.mixup=nan": ["out of range"],
    "task.label_smoothing=1": ["0 to below 1"],
    **each(["task.mix_probability=1.1", "task.cutmix_share=-1", "data.erasing=2"], ["0 to 1"]),
    **each(["data.val_fraction=0", "data.val_fraction=1", "data.test_fraction=-1"], ["above 0, below 1"]),
    **each(["data.image_size=0", "data.image_size=[8,0]", "data.image_size=100000"], ["1 to 65,536"]),
    **each(["data.split_seed=-1", "task.worst=-1"], ["at least 0"]),
}
WRONG_TYPE = {
    **each(["model.d_state=null", "model.d_state=16.0", "model.depth=4.0", "model.embed_dim=true", "model.d_state=[16]"],
           ["wrong type", "a whole number"]),
    "model.drop_path_rate=null": ["wrong type", "a number"],
    "model.divide=2": ["wrong type", "true or false"],
    **each(["model.size=huge", "model.size=2.8b", "model.size="], ["no option", "micro, tiny"]),
    "model.class_token=centre": ["no option", "middle"],
    **each(["model.parameters=seperate", "model.conv=pathh", "model.backend=cuda", "data.augmentation=lite"], ["no option"]),
    "scan=null": ["needs a scan", "scan=bidirectional"],
}  # fmt: skip
MISSPELT = {
    "patch_size=2": ["do:      model.patch_size=2"],
    "modle.d_state=4": ["do:      model.d_state=4"],
    "model.d_stat=4": ["do:      model.d_state=4"],
    "modle=vim": ["do:      model=vim"],
    "data=cifar": ["do:      data=cifar10"],
    "vim": ["do:      model=vim"],
    "data.root=/a(b": ["train.py 'data.root=\"/a(b\"'"],
}
CASES = {**OUT_OF_RANGE, **WRONG_TYPE, **MISSPELT}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    return messages(CASES, [], tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("case", CASES)
def test_one_message_before_torch_is_loaded(case, said):
    assert [part for part in CASES[case] if part not in said[case]] == [], said[case]


def test_a_path_with_a_space(refused):
    command = "train.py data=image_folder 'data.root=/my photos'"
    assert command in refused("data=image_folder", "data.root=/my", "photos")
