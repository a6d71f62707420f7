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
        size: length in bytes; 0: not known.
        md5: checksum of a file whose publisher says no other.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str = ""
    size: int = 0
    md5: str = ""

    @property
    def checksum(self) -> tuple[str, str]:
        """The name of the hash and the file's."""
        return ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)


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
