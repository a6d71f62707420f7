import json
import os
import resource
import shutil

import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.engine.checkpoints import folder as files


def save(folder, step, value=0.0):
    return files.write(
        folder, step, {"w": torch.full((4,), value)}, {"step": step, "moment": torch.ones(3)}, {"epoch": 1}
    )


def test_what_is_written_comes_back(tmp_path):
    path = save(tmp_path, 7, 2.5)
    assert files.verify(path)["step"] == 7
    assert torch.equal(files.read_weights(path)["w"], torch.full((4,), 2.5))
    state = files.read_state(path)
    assert state["step"] == 7
    assert torch.equal(state["moment"], torch.ones(3))


def test_links_move_and_old_checkpoints_go(tmp_path):
    for step in range(1, 6):
        path = save(tmp_path, step)
        files.point(tmp_path, "last", path)
        if step == 2:
            files.point(tmp_path, "best", path)
        files.tidy(tmp_path)
    assert (tmp_path / "last").resolve().name == "step-00000005"
    assert sorted(path.name for path in files.checkpoints(tmp_path)) == [
        "step-00000002",
        "step-00000004",
        "step-00000005",
    ]


def test_one_step_twice_keeps_both(tmp_path):
    assert save(tmp_path, 3).name == "step-00000003"
    assert save(tmp_path, 3).name == "step-00000003-2"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [files.WEIGHTS, files.STATE])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_the_one_before_is_used(tmp_path, name, damage):
    run = tmp_path / "run"
    for step in (1, 2):
        files.point(run / "checkpoints", "last", save(run / "checkpoints", step))
    target = run / "checkpoints" / "step-00000002" / name
    if damage == "flip":
        flip(target)
    elif damage == "cut":
        os.truncate(target, target.stat().st_size // 2)
    else:
        target.unlink()
    path, remark = files.find(run)
    assert path.name == "step-00000001"
    assert name in remark
    assert "Using" in remark


def test_all_damaged_is_an_error(tmp_path):
    path = save(tmp_path / "checkpoints", 1)
    (path / files.MANIFEST).write_text("{}")
    with pytest.raises(UserError, match="every checkpoint here is damaged"):
        files.find(tmp_path)


def test_a_crash_while_writing_leaves_what_was_there(tmp_path, monkeypatch):
    files.point(tmp_path, "last", save(tmp_path, 1))
    monkeypatch.setattr(files.torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert files.find(tmp_path)[0].name == "step-00000001"
    save(tmp_path, 2)
    assert not list(tmp_path.glob(f"{files.UNFINISHED}*"))


def test_state_that_would_run_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_here"), "w"))

    path = save(tmp_path, 1)
    torch.save({"attack": Hostile()}, path / files.STATE)
    manifest = json.loads((path / files.MANIFEST).read_text())
    manifest["sha256"][files.STATE] = files.sha256(path / files.STATE)
    (path / files.MANIFEST).write_text(json.dumps(manifest))
    assert files.verify(path)
    with pytest.raises(Exception, match="weights_only"):
        files.read_state(path)
    assert not (tmp_path / "was_here").exists()


def test_tied_weights_are_written_under_both_names(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    path = files.write(tmp_path, 1, model.state_dict(), {}, {})
    assert set(files.read_weights(path)) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in this folder"):
        files.find(tmp_path)


def copy_without_links(folder, copy):
    shutil.copytree(folder, copy, symlinks=False)
    return copy


def test_links_that_became_folders_are_links_again(tmp_path):
    folder = tmp_path / "run"
    for step in (1, 2, 3):
        files.point(folder, "last", save(folder, step, step))
        if step == 1:
            files.point(folder, "best", folder / "step-00000001")
    copy = copy_without_links(folder, tmp_path / "copy")
    shutil.rmtree(copy / "step-00000001")
    (copy / f"{files.UNFINISHED}step-00000004").mkdir()
    assert files.settle(copy / "last") == copy / "step-00000003"
    assert (copy / "last").readlink().name == "step-00000003"
    assert (copy / "best").readlink().name == "step-00000001"
    assert files.read_weights(copy / "best")["w"][0] == 1
    assert sorted(path.name for path in copy.iterdir()) == [
        "best", "last", "step-00000001", "step-00000002", "step-00000003",
    ]  # fmt: skip


def test_a_folder_gives_way_to_a_link(tmp_path):
    path = save(tmp_path, 1)
    shutil.copytree(path, tmp_path / "last")
    files.point(tmp_path, "last", path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["last", "step-00000001"]
    assert (tmp_path / "last").is_symlink()


def test_the_newest_checkpoint_of_a_copy_is_the_newest(tmp_path):
    for step in (1, 2, 3):
        os.utime(save(tmp_path, step), (1e9 - step, 1e9 - step))
    assert [path.name[-1] for path in files.checkpoints(tmp_path)] == ["3", "2", "1"]


def test_a_link_that_leads_nowhere_is_said(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "last").symlink_to("step-00000009")
    path, remark = files.find(tmp_path)
    assert path.name == "step-00000001"
    assert remark.startswith(f"last of {tmp_path} leads to no checkpoint. Using ")


@pytest.mark.parametrize("bytes_free", [300, 1500, 2200])
def test_a_full_disk_is_the_systems_error_and_leaves_nothing_unfinished(tmp_path, bytes_free):
    files.point(tmp_path, "last", save(tmp_path, 1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_free, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write(tmp_path, 2, {"w": torch.ones(150)}, {"moment": torch.ones(300)}, {"epoch": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step-00000001"]
    assert files.find(tmp_path)[0].name == "step-00000001"


def test_an_error_that_has_nothing_to_do_with_the_disk_stays_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(files.torch, "save", lambda *_: (_ for _ in ()).throw(RuntimeError("a worker died")))
    with pytest.raises(RuntimeError, match="a worker died"):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o027])
def test_files_are_as_readable_as_the_umask_lets_them_be(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = save(tmp_path, 1)
    finally:
        os.umask(before)
    assert {each.stat().st_mode & 0o777 for each in path.iterdir()} == {0o666 & ~mask}


def test_the_weights_say_what_they_are(tmp_path):
    about = {"classes": ["Käse", "b"], "mean": [0.5], "scan": {"name": "cross"}, "limit": None, "sizes": [8, 8]}
    path = files.write(tmp_path, 1, nn.Linear(2, 2).state_dict(), {}, {}, about)
    assert files.read_about(path) == about
    assert files.read_about(save(tmp_path, 2)) == {}
    (path / files.WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(files.Damaged):
        files.read_about(path)
