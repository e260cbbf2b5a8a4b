# SPDX-License-Identifier: GPL-2.0-only
"""What kernels are made of: the newest packages, the files of them that are needed, the settings, the build."""

from __future__ import annotations

import lzma
import os
import shutil
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pytest
from packed import deb, tar

from rmaplab.errors import InputError
from rmaplab.realkernel.guest import build as building
from rmaplab.realkernel.guest.build import build, fragments, guarded, is_needed, marked, merged, roomy, settings
from rmaplab.realkernel.guest.packages import Package
from rmaplab.realkernel.guest.recipes import MODULES, RECIPES, Choice, choose_package, configuration, make_debian

if TYPE_CHECKING:
    from collections.abc import Mapping

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not installed")


class Suite(NamedTuple):
    """A suite that has packages, and files for them."""

    packages: list[Package]
    files: Mapping[str, dict[str, bytes]] = MappingProxyType({})

    def fetch(self, package, folder):
        return deb(folder / f"{package.name}.deb", self.files[package.name])


def suite(*texts):
    return Suite([Package(*text.split()) for text in texts])


TRIXIE = suite(
    "linux-source-7.2 7.2.12-1~bpo13+1",
    "linux-source-7.3 7.3.4-1~bpo13+1",
    "linux-source-7.3 7.3.10-1~bpo13+1",
    "linux-image-cloud-amd64 7.3.4-1~bpo13+1",
    "linux-image-6.18.9+deb13-cloud-amd64 6.18.9-1~bpo13+1",
    "linux-image-6.18.15+deb13-cloud-amd64 6.18.15-1~bpo13+1",
    "linux-image-6.18.15+deb13-cloud-amd64-unsigned 6.18.15-1~bpo13+1",
    "linux-image-7.3.4+deb13-cloud-amd64 7.3.4-1~bpo13+1",
    "linux-binary-7.3.4+deb13-cloud-amd64 7.3.4-1~bpo13+1",
    "linux-modules-7.3.4+deb13-cloud-amd64 7.3.4-1~bpo13+1",
    "linux-base-7.3.4+deb13-cloud-amd64 7.3.4-1~bpo13+1",
    "linux-image-7.3.4+deb13-cloud-amd64-dbg 7.3.4-1~bpo13+1",
    "linux-image-7.3.5+deb13-cloud-amd64 7.3.5-1~bpo13+1",
)


def test_the_newest_source_is_chosen():
    choice = choose_package("um-7.3", [TRIXIE])
    assert choice.main == Package("linux-source-7.3", "7.3.10-1~bpo13+1")
    assert not choice.other
    assert choice.key == f"um-7.3_7.3.10-1~bpo13+1_{configuration('um-7.3')}"


def test_a_later_release_stands_in_for_one_that_is_gone():
    choice = choose_package("um-7.3", [suite("linux-source-7.2 7.2.1-1", "linux-source-7.12 7.12.1-1")])
    assert (choice.main.name, choice.other) == ("linux-source-7.12", True)


def test_the_newest_of_two_suites_is_chosen():
    old, new = suite("linux-source-6.12 6.12.95-1~bpo12+1"), suite("linux-source-6.12 6.12.117-1~deb12u1")
    for archives in ([old, new], [new, old]):
        choice = choose_package("um-6.12", archives)
        assert choice.main.version == "6.12.117-1~deb12u1"
        assert choice.archive is new


def test_a_kernel_in_one_package_and_one_in_several():
    one = choose_package("deb-6.18", [TRIXIE])
    assert one.release == "6.18.15+deb13-cloud-amd64"
    assert {part: package.name for part, package in one.packages.items()} == {"image": f"linux-image-{one.release}"}
    several = choose_package("deb-7.3", [TRIXIE])
    assert several.release == "7.3.4+deb13-cloud-amd64", "one with symbols comes before a newer one without"
    assert {part: package.name for part, package in several.packages.items()} == {
        "image": f"linux-binary-{several.release}",
        "modules": f"linux-modules-{several.release}",
        "config": f"linux-base-{several.release}",
        "symbols": f"linux-image-{several.release}-dbg",
    }


def test_6_1_is_not_6_12():
    archive = suite("linux-image-6.12.9+deb12-cloud-amd64 6.12.9-1", "linux-image-6.1.0-56-cloud-amd64 6.1.192-2")
    assert choose_package("deb-6.1", [archive]).release == "6.1.0-56-cloud-amd64"
    assert choose_package("deb-6.12", [archive]).release == "6.12.9+deb12-cloud-amd64"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_debian_does_not_have_is_told(name):
    with pytest.raises(InputError, match=rf"^{name}: .*of Debian have no such kernel"):
        choose_package(name, [suite("linux-image-5.10.0-1-cloud-amd64 5.10.1-1")])


def test_the_configuration_is_part_of_the_key(monkeypatch):
    before = {name: configuration(name) for name in RECIPES}
    assert before["um-7.3"] == before["um-6.12"] != before["um-7.3-debug"]
    monkeypatch.setattr("rmaplab.realkernel.guest.recipes.fragments", lambda _: "CONFIG_KSM=n\n")
    assert all(configuration(name) != before[name] for name in RECIPES if RECIPES[name].kind == "um")


RELEASE = "7.3.4+deb13-cloud-amd64"
LIB = f"./usr/lib/modules/{RELEASE}"


@needs_dpkg
def test_a_kernel_is_taken_out_of_its_packages(tmp_path):
    files = {
        "i": {f"{LIB}/vmlinuz": b"image"},
        "m": {
            f"{LIB}/kernel/drivers/virtio/virtio_ring.ko.xz": lzma.compress(b"ring"),
            f"{LIB}/kernel/drivers/firmware/qemu_fw_cfg.ko.xz": lzma.compress(b"fw_cfg"),
            f"{LIB}/kernel/drivers/virtio/virtio.ko": b"plain",
            f"{LIB}/kernel/drivers/net/virtio_net.ko.xz": lzma.compress(b"net"),
        },
        "c": {f"{LIB}/config": b"CONFIG_KSM=y\n# CONFIG_SLUB_TINY is not set\n", f"{LIB}/System.map": b"x"},
        "s": {f"./usr/lib/debug/{LIB[2:]}/vmlinux": b"symbols", f"./usr/lib/debug/{LIB[2:]}/a.ko.debug": b"x"},
    }
    parts = dict(zip(("image", "modules", "config", "symbols"), (Package(name, "1") for name in files), strict=True))
    kernel = make_debian(Choice("deb-7.3", RELEASE, Suite([], files), parts), tmp_path, lambda _: None)
    assert (kernel.version, kernel.kind, kernel.config) == (RELEASE, "qemu", {"CONFIG_KSM": "y"})
    assert (kernel.image.read_bytes(), kernel.vmlinux.read_bytes()) == (b"image", b"symbols")
    assert [module.name for module in kernel.modules] == ["qemu_fw_cfg.ko", "virtio.ko", "virtio_ring.ko"]
    assert [module.read_bytes() for module in kernel.modules] == [b"fw_cfg", b"plain", b"ring"]
    assert [module.stem for module in kernel.modules] == [name for name in MODULES if name in str(kernel.modules)]
    place = tmp_path / "kernel"
    left = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    assert left == [*(f"modules/{module.name}" for module in kernel.modules), "vmlinux", "vmlinuz"]


@needs_dpkg
def test_a_kernel_without_symbols_or_image(tmp_path):
    files = {"i": {f"./boot/vmlinuz-{RELEASE}": b"image", f"./boot/config-{RELEASE}": b"CONFIG_A=m\n"}, "e": {}}
    choice = Choice("deb-6.18", RELEASE, Suite([], files), {"image": Package("i", "1")})
    kernel = make_debian(choice, tmp_path, lambda _: None)
    assert (kernel.vmlinux, kernel.modules, kernel.config) == (None, (), {"CONFIG_A": "m"})
    shutil.rmtree(tmp_path / "kernel")
    with pytest.raises(InputError, match=r"^e 1: has no vmlinuz$"):
        make_debian(choice._replace(packages={"image": Package("e", "1")}), tmp_path, lambda _: None)


# Building.


@pytest.mark.parametrize("path", ["Makefile", "mm/rmap.c", "arch/um/kernel/tlb.c", "arch/x86/include/asm/page.h"])
def test_files_that_building_takes(path):
    assert is_needed(path)


@pytest.mark.parametrize("path", ["drivers/gpu/Kconfig", "net/Makefile", "arch/arm/Kconfig.debug", "rust/Kbuild"])
def test_descriptions_of_the_rest_are_taken(path):
    assert is_needed(path)


@pytest.mark.parametrize("path", ["drivers/gpu/drm/a.c", "Documentation/mm/rmap.rst", "arch/arm/a.c", "net/socket.c"])
def test_files_that_building_does_not_take(path):
    assert not is_needed(path)


def test_settings_give_way_to_a_fragments():
    text = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=3\nCONFIG_AB=y\n"
    assert merged(text, '# a remark\n# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_D="x"\n') == (
        'CONFIG_C=3\nCONFIG_AB=y\n# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_D="x"\n'
    )
    assert settings(text) == {"CONFIG_A": "y", "CONFIG_C": "3", "CONFIG_AB": "y"}


def test_the_fragments_ask_for_nothing_twice():
    for name in ("um-7.3", "um-7.3-debug"):
        lines = [line.replace("# ", "").split("=")[0].split()[0] for line in fragments(name).splitlines() if line]
        names = [line for line in lines if line.startswith("CONFIG_")]
        assert sorted(set(names)) == sorted(names)
    assert "KASAN" in fragments("um-7.3-debug")
    assert "KASAN" not in fragments("um-7.3")


WALK = """\
void flush(struct mm_struct *mm)
{
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, mm, 0);

	for_each_vma(vmi, vma)
		um_tlb_mark_sync(mm, vma->vm_start, vma->vm_end);
}
"""


def test_a_walk_is_guarded():
    before, _, after = guarded(WALK).partition("{\n\t\tif (xa_is_zero(vma))\n\t\t\tbreak;\n")
    assert before.endswith("for_each_vma(vmi, vma) ")
    assert after == "\t\tum_tlb_mark_sync(mm, vma->vm_start, vma->vm_end);\n\t}\n}\n"
    with pytest.raises(InputError, match=r"tlb\.c"):
        guarded("void flush(void) {}\n")
    with pytest.raises(InputError, match=r"tlb\.c"):
        guarded(guarded(WALK))


POPULATE = """\
#define pmd_populate_kernel(mm, pmd, pte) \\
\tset_pmd(pmd, __pmd(_PAGE_TABLE + (unsigned long) __pa(pte)))

#define pmd_populate(mm, pmd, pte) \t\t\t\t\\
\tset_pmd(pmd, __pmd(_PAGE_TABLE +\t\t\t\\
\t\t((unsigned long long)page_to_pfn(pte) <<\t\\
\t\t\t(unsigned long long) PAGE_SHIFT)))
"""


def test_new_page_tables_are_marked():
    mended = marked(POPULATE)
    kernel, _, users = mended.partition("static inline pmd_t *um_marked(")
    assert kernel == POPULATE[: POPULATE.index("#define pmd_populate(")]
    assert users.count("set_pmd(um_marked(mm, pmd, pte), __pmd(_PAGE_TABLE +") == 1
    for text in ("", mended, POPULATE * 2):
        with pytest.raises(InputError, match=r"pgalloc\.h"):
            marked(text)


def test_registers_of_large_processors_have_room():
    text = "#ifdef FP_XSTATE_MAGIC1\n\tDEFINE_LONGS(HOST_FP_SIZE, 2696);\n#endif\n\tDEFINE_LONGS(HOST_BX, RBX);\n"
    assert roomy(text) == text.replace("2696", "12288")
    assert roomy("\tDEFINE_LONGS(HOST_BX, RBX);\n") == "\tDEFINE_LONGS(HOST_BX, RBX);\n"  # sizes found at run time


# A `make` that knows the steps, and compiles mm/rmap.c and what is asked for besides.
MAKE = """\
#!/bin/sh
while [ $# -gt 1 ]; do case $1 in -C) source=$2; shift;; O=*) out=${1#O=};; esac; shift; done
test -z "$MAKEFLAGS" || exit 9
case $1 in
tinyconfig) echo CONFIG_SLUB_TINY=y >$out/.config;;
olddefconfig) grep -v LOST $out/.config >$out/.new; mv $out/.new $out/.config;;
linux)
    for file in mm/rmap.c $(cat $source/also); do
        test -e $source/$file || { echo "make: *** No rule to make target '$file'.  Stop."; exit 2; }
        grep -q wrong $source/$file && { echo "$file:1: error: wrong"; exit 2; }
        echo "  CC      $file"
    done
    test -e $source/slow && { echo $$ >$source/../pid; exec sleep 600; }
    mkdir -p $out/include/config
    echo 7.3.4 >$out/include/config/kernel.release
    cp $source/arch/um/kernel/tlb.c $out/linux;;
esac
"""
FRAGMENT = "".join(f"{line}\n" for line in building._REQUIRED)


@pytest.fixture(name="workshop")
def _workshop(tmp_path, monkeypatch):
    """Builds a source tree of some files; what was told, and the kernel."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "make").write_text(MAKE)
    (tmp_path / "bin" / "make").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MAKEFLAGS", "--jobserver-auth=3,4")
    monkeypatch.setattr(building, "_ROOM", 1)

    def workshop(files, fragment=FRAGMENT, tell=None):
        um = {"arch/um/kernel/tlb.c": WALK.encode(), "arch/um/include/asm/pgalloc.h": POPULATE.encode()}
        files = {"also": b"", "mm/rmap.c": b"", **um, **files}
        tree = tar({f"linux-source-7.3/{name}": data for name, data in files.items()}, "w:xz")
        package = deb(tmp_path / "source.deb", {"./usr/src/linux-source-7.3.tar.xz": tree})
        work, told = tmp_path / "work", []
        work.mkdir()
        release, config = build(package, fragment, work, tmp_path / "log", tell or told.append)
        assert [path.name for path in (work / "kernel").iterdir()] == ["linux"]
        return release, config, (work / "kernel" / "linux").read_text(), told

    return workshop


@needs_dpkg
def test_a_kernel_is_built(workshop):
    release, config, kernel, told = workshop({"net/socket.c": b"wrong", "kernel/fork.c": b"", "mm/mmap.c": b""})
    assert (release, kernel) == ("7.3.4", WALK)
    assert config == FRAGMENT
    assert told == ["unpacking the source", "configuring", "compiling: 1 files"]


@needs_dpkg
@pytest.mark.parametrize("file", ["kernel/fork.c", "mm/mmap.c"])
def test_a_kernel_whose_failed_forks_leave_marks_is_guarded(workshop, file):
    assert workshop({file: b"mas_store(&vmi.mas, XA_ZERO_ENTRY);"})[2] == guarded(WALK)


@needs_dpkg
def test_a_source_that_needs_more_files_gets_them(workshop):
    told = workshop({"also": b"net/socket.c", "net/socket.c": b""})[3]
    assert told[-2:] == ["compiling: 1 files", "compiling: 2 files"]
    assert "unpacking the rest of the source" in told


@needs_dpkg
def test_a_setting_that_is_not_taken_is_told(workshop):
    assert "this release does not take CONFIG_LOST=y" in workshop({}, FRAGMENT + "CONFIG_LOST=y\n")[3]


@needs_dpkg
def test_a_setting_that_guests_need_must_be_taken(workshop):
    with pytest.raises(InputError, match="does not take CONFIG_FAILSLAB=y, which guests need"):
        workshop({}, FRAGMENT.replace("CONFIG_FAILSLAB=y\n", ""))


@needs_dpkg
def test_an_error_of_the_compiler_is_told(workshop, tmp_path):
    with pytest.raises(InputError, match=r"mm/rmap\.c:1: error: wrong; all that make said is in "):
        workshop({"mm/rmap.c": b"wrong"})
    assert "mm/rmap.c:1: error: wrong" in (tmp_path / "log").read_text()


@needs_dpkg
def test_a_build_that_is_interrupted_ends(workshop, tmp_path):
    pid = tmp_path / "work" / "pid"

    def interrupt(what):
        if what.startswith("compiling"):
            while not (pid.exists() and pid.read_text().endswith("\n")):
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workshop({"slow": b""}, tell=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@needs_dpkg
def test_a_file_that_is_nowhere_is_told(workshop):
    with pytest.raises(InputError, match=r"No rule to make target 'no/such\.c'"):
        workshop({"also": b"no/such.c"})


def test_where_kernels_cannot_be_built(tmp_path, monkeypatch):
    for name in ("a b", "a:b"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=r"blanks or colons; set RMAPLAB_CACHE$"):
            build(Path("x.deb"), "", tmp_path / name, tmp_path / "log", print)
    monkeypatch.setattr(building, "_ROOM", 1 << 70)
    with pytest.raises(InputError, match="GiB of room"):
        build(Path("x.deb"), "", tmp_path, tmp_path / "log", print)


@needs_dpkg
def test_a_package_without_a_source_tree_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "_ROOM", 1)
    with pytest.raises(InputError, match=r"^a\.deb: has no source tree$"):
        build(deb(tmp_path / "a.deb", {"./usr/src/readme": b""}), "", tmp_path, tmp_path / "log", lambda _: None)
