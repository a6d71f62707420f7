"""Where the tables of events come from."""

from __future__ import annotations

from ..sources import RemoteFile, Source

SESSIONS = Source(
    title="Sessions whose first event rules what follows what",
    homepage="",
    citation="",
    licence="none needed: computed",
    protocol="leave-one-out: each user's last event is the test, the one before it the validation",
)

INTERACTIONS = Source(
    title="The user's own table of events",
    homepage="",
    citation="",
    licence="the user's own",
    protocol="as data.split says: each user's last events, the last of all events, or shares of each user's",
)

PROTOCOL = "leave-one-out: each user's last review is the test, the one before it the validation; all items are ranked"


def _s3rec(name: str, files: tuple[tuple[str, str, int], ...]) -> Source:
    at = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/master/data/"
    return Source(
        title=f"Amazon reviews 2014, {name.replace('_', ' ')}, 5-core, as S3-Rec has them",
        homepage="https://github.com/RUCAIBox/CIKM2020-S3Rec",
        citation="J. McAuley et al.: Image-based Recommendations on Styles and Substitutes, 2015; K. Zhou et al.: S3-Rec, 2020",
        licence="none stated",
        protocol=PROTOCOL,
        folder=f"recommendation/{name}",
        files=tuple(RemoteFile(file, (at + file,), sha256, size) for file, sha256, size in files),
        content=tuple((file, sha256) for file, sha256, _ in files),
    )


BEAUTY = _s3rec(
    "Beauty",
    (
        ("Beauty.txt", "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8", 1_090_094),
        ("Beauty_item2attributes.json", "129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4", 305_674),
    ),
)

SPORTS = _s3rec(
    "Sports_and_Outdoors",
    (
        ("Sports_and_Outdoors.txt", "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2", 1_707_483),
        (
            "Sports_and_Outdoors_item2attributes.json",
            "7fb10733ac4f1811384a52144cdefa7fcc7536fa80a7232c5da9bd789155c34b",
            653_780,
        ),
    ),
)

TOYS = _s3rec(
    "Toys_and_Games",
    (
        ("Toys_and_Games.txt", "176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f", 922_166),
        (
            "Toys_and_Games_item2attributes.json",
            "d371acd25101eedac04afc727626464b7acec770c4eda708705d51eb76eb1ad0",
            327_536,
        ),
    ),
)

VIDEO_GAMES = Source(
    title="Amazon reviews 2014, Video Games, 5-core, as SASRec has them",
    homepage="https://github.com/kang205/SASRec",
    citation="J. McAuley et al.: Image-based Recommendations on Styles and Substitutes, 2015; W. Kang, J. McAuley: SASRec, 2018",
    licence="Apache-2.0",
    protocol=PROTOCOL,
    folder="recommendation/Video_Games",
    files=(
        RemoteFile(
            "Video.txt",
            ("https://raw.githubusercontent.com/kang205/SASRec/master/data/Video.txt",),
            "b7376fe24430743f411dc7f567285657b2adb3f74361cc7ba0aee94f3024b651",
            3_187_124,
        ),
    ),
    content=(("Video.txt", "b7376fe24430743f411dc7f567285657b2adb3f74361cc7ba0aee94f3024b651"),),
)


def _movielens(name: str, size: str, sha256: str, length: int) -> Source:
    return Source(
        title=f"MovieLens {size}",
        homepage=f"https://grouplens.org/datasets/movielens/{size.lower()}/",
        citation="F. M. Harper, J. A. Konstan: The MovieLens Datasets, ACM TiiS 5 (4), 2015",
        licence="GroupLens's terms: research, with citation; not to be passed on or used commercially without permission",
        protocol=PROTOCOL.replace("review", "rating"),
        folder=f"recommendation/{name}",
        files=(
            RemoteFile(f"{name}.zip", (f"https://files.grouplens.org/datasets/movielens/{name}.zip",), sha256, length),
        ),
        content=((f"{name}.zip", sha256),),
    )


# The archives whose md5 GroupLens publishes: 0e33842e24a9c977be4e0107933c0723 and c4d9eecfca2ab87c1945afe126590906.
MOVIELENS_100K = _movielens(
    "ml-100k", "100K", "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229", 4_924_029
)
MOVIELENS_1M = _movielens("ml-1m", "1M", "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20", 5_917_549)
