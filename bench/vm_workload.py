"""One day's work inside a mounted VM disk: what a database, an application and its logs do to the
blocks.

    usage: vm_workload.py ROOT DAY DB_MIB SQL_ROWS

Day 1 creates the files, later days change them as their owners would: a page-structured database
file with a hot part and some growth, write-ahead segments recycled in place, an SQLite file with
updates, deletes and inserts, logs that grow and rotate through gzip, a preallocated journal,
incompressible uploads that come and go. All of it is seeded by the day, so the same arguments
write the same bytes.
"""

import gzip
import random
import shutil
import sqlite3
import struct
import sys
from pathlib import Path

PAGE = 8192
PAGES_PER_SEGMENT = (16 << 20) // PAGE
DATABASE = "var/lib/postgresql/15/main"
LETTERS = b"etaoinshrdlu"
PROGRAMS = (b"sshd", b"cron", b"kernel", b"postgres", b"nginx")


class Workload:
    """The work of one day on the file system mounted at `root`."""

    def __init__(self, root: Path, day: int) -> None:
        self.root = root
        self.day = day
        self.random = random.Random(1000 + day)
        self.words = vocabulary()

    def run(self, database_mib: int, sql_rows: int) -> None:
        """Do the whole day's work."""
        pages = database_mib * (1 << 20) // PAGE
        if self.day == 1:
            self.create_database(pages)
        else:
            self.change_database(pages)
        self.write_ahead_log()
        self.application_rows(sql_rows)
        if self.day > 1:
            self.rotate_logs()
        self.write_logs()
        self.uploads()

    def folder(self, name: str) -> Path:
        """A folder inside the VM, made where it is missing."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, words: int) -> bytes:
        """Some words."""
        return b" ".join(self.random.choices(self.words, k=words))

    def page(self, number: int) -> bytes:
        """A heap page: a header, pointers, free space, then rows, half text and half random."""
        rows: list[bytes] = []
        used = 24
        while used < 7600:
            head = struct.pack("<QIH", self.random.getrandbits(48), number, self.day)
            rows.append(head + self.text(10) + self.random.randbytes(40))
            used += len(rows[-1]) + 4
        header = struct.pack("<QHHII", self.day, 0, 4, 24 + 4 * len(rows), PAGE - used)
        pointers = b"".join(struct.pack("<HH", 100 + i, len(row)) for i, row in enumerate(rows))
        return (header + pointers + bytes(64) + b"".join(rows)).ljust(PAGE, b"\0")[:PAGE]

    def create_database(self, pages: int) -> None:
        """Each page copies one of 1500, with a number and 1.5 KiB of random bytes of its own."""
        templates = [self.page(number) for number in range(1500)]
        with (self.folder(f"{DATABASE}/base/16384") / "16385").open("wb") as file:
            for number in range(pages):
                page = bytearray(templates[number % len(templates)])
                page[0:8] = struct.pack("<Q", number)
                page[2000:3536] = self.random.randbytes(1536)
                file.write(page)

    def change_database(self, pages: int) -> None:
        """2 % of the pages change, half of these within a hot 5 %; the file grows by 2 %."""
        hot = self.random.sample(range(pages), pages // 20)
        changed = set(self.random.sample(hot, pages // 100))
        changed.update(self.random.sample(range(pages), pages // 100))
        with (self.folder(f"{DATABASE}/base/16384") / "16385").open("r+b") as file:
            for number in sorted(changed):
                file.seek(number * PAGE)
                file.write(self.page(number))
            file.seek(0, 2)
            for number in range(pages, pages + pages // 48):
                file.write(self.page(number))

    def write_ahead_log(self) -> None:
        """Segments of 16 MiB: three on the first day, later two of them written again in place."""
        folder = self.folder(f"{DATABASE}/pg_wal")
        first_day = self.day == 1
        for segment in range(3 if first_day else 2):
            slot = segment if first_day else (self.day * 2 + segment) % 3
            with (folder / f"{1:08X}{0:08X}{slot:08X}").open("wb" if first_day else "r+b") as file:
                for number in range(PAGES_PER_SEGMENT):
                    short = self.random.randbytes(2048).ljust(PAGE, b"\0")
                    file.write(self.page(number) if number % 8 == 0 else short)

    def application_rows(self, rows: int) -> None:
        """An SQLite file: filled on day 1, then 1.7 % updates, 0.5 % deletes, 2 % inserts a day."""
        connection = sqlite3.connect(self.folder("srv") / "app.sqlite")
        cursor = connection.cursor()
        cursor.execute("pragma journal_mode=delete")
        cursor.execute("pragma synchronous=off")
        cursor.execute("create table if not exists t(id integer primary key, k text, v blob)")
        cursor.execute("create index if not exists tk on t(k)")
        new = rows
        if self.day > 1:
            new = rows // 50
            updates = [(self.value(), self.row(rows)) for _ in range(rows // 60)]
            deletes = [(self.row(rows),) for _ in range(rows // 200)]
            cursor.executemany("update t set v=? where id=?", updates)
            cursor.executemany("delete from t where id=?", deletes)
        values = ((self.text(12).decode(), self.random.randbytes(300)) for _ in range(new))
        cursor.executemany("insert into t(k,v) values(?,?)", values)
        connection.commit()
        connection.close()

    def value(self) -> bytes:
        """A row's new content; its length varies."""
        return self.random.randbytes(self.random.randint(200, 340))

    def row(self, rows: int) -> int:
        """The number of a row that may exist."""
        return self.random.randint(1, rows)

    def rotate_logs(self) -> None:
        """As logrotate does: N.gz becomes N+1.gz, .1 is compressed, the log becomes .1."""
        folder = self.folder("var/log")
        for number in range(6, 1, -1):
            old = folder / f"syslog.{number}.gz"
            if old.exists():
                old.rename(folder / f"syslog.{number + 1}.gz")
        yesterday = folder / "syslog.1"
        if yesterday.exists():
            packed_name = folder / "syslog.2.gz"
            with yesterday.open("rb") as plain, gzip.open(packed_name, "wb", 6) as packed:
                shutil.copyfileobj(plain, packed)
            yesterday.unlink()
        (folder / "syslog").rename(yesterday)

    def write_logs(self) -> None:
        """Append to the logs; write a journal into a preallocated file."""
        folder = self.folder("var/log")
        for name, lines in (("syslog", 150_000), ("auth.log", 20_000)):
            with (folder / name).open("ab") as file:
                file.writelines(self.log_line() for _ in range(lines))
        journal = self.folder("var/log/journal/vm1") / f"system@{self.day:04x}.journal"
        with journal.open("wb") as file:
            file.truncate(16 << 20)
            file.writelines(self.log_line() for _ in range(60_000))

    def log_line(self) -> bytes:
        """One line as syslog would write it."""
        pick = self.random.randrange
        clock = (10 + self.day, pick(24), pick(60), pick(60), pick(10**6))
        time = b"2025-11-%02dT%02d:%02d:%02d.%06d" % clock
        program = self.random.choice(PROGRAMS)
        return b"%s vm1 %s[%d]: %s\n" % (time, program, pick(30_000), self.text(9))

    def uploads(self) -> None:
        """Incompressible files: some of the old ones go, new ones come."""
        folder = self.folder("srv/uploads")
        if self.day > 1:
            share = 0.1 if self.day == 2 else 0.3
            for path in sorted(folder.iterdir()):
                if self.random.random() < share:
                    path.unlink()
        for number in range(120 if self.day == 1 else 25):
            size = int(min(8e6, self.random.lognormvariate(13, 1)))
            (folder / f"d{self.day}-{number:04d}.jpg").write_bytes(self.random.randbytes(size))


def vocabulary() -> list[bytes]:
    """The words of all texts; the same on every day."""
    source = random.Random(1001)
    return [bytes(source.choice(LETTERS) for _ in range(source.randint(2, 9))) for _ in range(3000)]


if __name__ == "__main__":
    Workload(Path(sys.argv[1]), int(sys.argv[2])).run(int(sys.argv[3]), int(sys.argv[4]))
