"""DICOM series: the same volume as NIfTI, whatever the order of its files; faults by the name of their file."""

from __future__ import annotations

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.medical import NiftiFolder
from polymamba.data.medical.plan import Plan
from polymamba.data.medical.volumes import Volumes, read_raw

pydicom = pytest.importorskip("pydicom")


@pytest.fixture
def series(tmp_path):
    """Writes a series of slices of (rows, columns) 5x4, 3 mm apart: series(count) -> its folder."""

    def write(count=6, name="scan", turn=0.0, values=None, **changed):
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid

        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        values = np.arange(count * 20, dtype=np.int16).reshape(count, 5, 4) if values is None else values
        across, down = [np.cos(turn), np.sin(turn), 0.0], [-np.sin(turn), np.cos(turn), 0.0]
        uid = generate_uid()
        for number in range(count):
            meta = FileMetaDataset()
            meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, generate_uid()
            meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
            # names in the order opposite to the slices'
            path = folder / f"{count - number:03}.dcm"
            slice_ = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
            slice_.update({
                "SOPClassUID": meta.MediaStorageSOPClassUID, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
                "SeriesInstanceUID": uid, "Modality": "CT", "Rows": 5, "Columns": 4, "BitsAllocated": 16, "BitsStored": 16,
                "HighBit": 15, "PixelRepresentation": 1, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
            })  # fmt: skip
            slice_.PixelSpacing, slice_.SliceThickness = [0.5, 0.75], 3.0
            slice_.ImageOrientationPatient = [round(each, 6) for each in (*across, *down)]
            slice_.ImagePositionPatient = [10.0, -20.0, 30.0 + 3.0 * number]
            slice_.RescaleSlope, slice_.RescaleIntercept = changed.get("slope", 1), -1024
            slice_.PixelData = values[number].tobytes()
            slice_.save_as(path)
        return folder

    return write


def test_a_series_is_a_volume_in_its_own_place(series):
    folder = series()
    raw = read_raw(folder)
    # DICOM's axes run to the left and to the back: both are turned
    values = np.arange(120).reshape(6, 5, 4).transpose(2, 1, 0)[::-1, ::-1] - 1024
    np.testing.assert_array_equal(raw.values[0], values)
    assert raw.values.dtype == np.int16
    assert raw.spacing == (0.75, 0.5, 3.0)
    np.testing.assert_allclose(raw.affine, [[-0.75, 0, 0, -10], [0, -0.5, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])


def test_numbers_that_are_scaled_are_not_whole(series):
    raw = read_raw(series(slope=0.5))
    assert raw.values.dtype == np.float32
    assert raw.values.max() == 119 * 0.5 - 1024


def test_an_oblique_series_keeps_its_place_in_the_labels(series, tmp_path):
    import nibabel

    folder, plan = series(turn=0.2), Plan(3, (4, 4, 4), ("background", "bright"), (0, 1))
    files = Volumes(plan)
    assert files.find(str(folder)) == files.find(str(tmp_path)) == [folder]
    raw = files.open(folder)
    written = files.write(raw, (raw.values[0] > -1000).astype(np.uint8), files.target(raw, tmp_path / "said"))
    assert written.name == "scan.nii.gz"
    found = nibabel.load(written)
    np.testing.assert_allclose(found.affine, raw.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.arange(120).reshape(6, 5, 4).transpose(2, 1, 0) > 24)


def test_series_beside_labels_are_cases(series, volumes):
    rng = np.random.default_rng(0)
    for number in range(5):
        noise = rng.integers(0, 900, (6, 5, 4)).astype(np.int16)
        folder = series(name=f"set/imagesTr/case{number}", values=noise)
        affine = read_raw(folder).affine
        labels = np.zeros((4, 5, 6), np.uint8)
        labels[1:3, 2:4, 2:5] = 1
        volumes.write(volumes.root / "labelsTr" / f"case{number}.nii.gz", labels, affine)
    data = NiftiFolder(str(volumes.root), patch_size=4)
    assert data.describe().counts == {"train": 3, "val": 1, "test": 1}
    labels = data.splits["test"][0].labels
    assert labels[1:3, 1:3, 2:5].all()
    assert labels.sum() == 12


def _change(folder, name, **values):
    found = pydicom.dcmread(folder / name)
    found.update(values)
    found.save_as(folder / name)


def cut_off(folder):
    path = folder / "003.dcm"
    path.write_bytes(path.read_bytes()[:-30])
    return "003.dcm"


def of_text(folder):
    (folder / "003.dcm").write_text("not a slice")
    return "003.dcm"


def missing(folder):
    (folder / "003.dcm").unlink()
    return "002.dcm"  # of the slice after the gap


def twice(folder):
    (folder / "copy.dcm").write_bytes((folder / "003.dcm").read_bytes())
    return "copy.dcm"


def of_another_series(folder):
    _change(folder, "003.dcm", SeriesInstanceUID="1.2.3")
    return "003.dcm"


def turned(folder):
    _change(folder, "003.dcm", ImageOrientationPatient=[0, 1, 0, 1, 0, 0])
    return "003.dcm"


def without_place(folder):
    found = pydicom.dcmread(folder / "003.dcm")
    del found.ImagePositionPatient
    found.save_as(folder / "003.dcm")
    return "003.dcm"


@pytest.mark.parametrize("fault", [cut_off, of_text, missing, twice, of_another_series, turned, without_place])
def test_a_series_that_is_broken_is_refused_by_the_name_of_its_file(series, fault):
    folder = series()
    named = fault(folder)
    with pytest.raises(UserError) as refused:
        read_raw(folder)
    assert str(folder / named) in str(refused.value)
