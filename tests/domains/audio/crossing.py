"""What sound has to say to the tests that cross all domains."""

SHORT = ("data.limit=8", "data.batch_size=4", "data.seconds=0.1")
FEW = ("data.train_speakers=2", "data.val_speakers=2", "data.test_speakers=2", "data.utterances=1")
DEFAULT = (*FEW, "model.depth=2", "model.channels=16")
SOUNDS = ("data=audio_folder", "data.root=sounds", "task=tagging")
NOISY = ("data=noisy_speech", "data.root=noisy", "task=enhancement")
MODELS = dict.fromkeys(("conv_tasnet", "dpmamba", "mamba_tasnet", "spmamba"), FEW) | {
    "spectrogram_transformer": SOUNDS, "aum": SOUNDS, "conmamba": SOUNDS, "semamba": NOISY,
}  # fmt: skip
ODD = (("data.seconds=0.001",), ("data.speakers=1",), ("data.seconds=0.0777", "scan=raster"))
PICTURES = ("first_batch.png", "worst_predictions.png")
EXPLAIN = None


def prepare(folder):
    import numpy as np
    import soundfile

    for kind, pitch in (("high", 900), ("low", 300)):
        (folder / "sounds" / kind).mkdir(parents=True, exist_ok=True)
        for number in range(6):
            tone = np.sin(np.arange(1600 + 10 * number) * pitch / 2500)
            soundfile.write(folder / "sounds" / kind / f"{number}.wav", 0.5 * tone, 16000)

    for kind in ("noisy", "clean"):
        (folder / "noisy" / kind).mkdir(parents=True, exist_ok=True)
        for number in range(10):
            soundfile.write(
                folder / "noisy" / kind / f"{number}.wav",
                0.1 * np.random.default_rng(number).standard_normal(2000),
                16000,
            )


def predict(folder):
    import numpy as np
    import soundfile

    (folder / "calls").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).standard_normal((3000, 2)) * 0.1
    soundfile.write(folder / "calls" / "stereo.flac", noise, 44100)
    soundfile.write(folder / "calls" / "short.wav", noise[:7, 0], 8000)
    return [("input=calls/stereo.flac",), ("input=calls", "output=apart"), ("input=calls/*.wav", "page=false")]
