# SPDX-License-Identifier: GPL-2.0-only
"""What a reader can find out of a model's state, as the snapshot that it should give."""

import struct
from dataclasses import replace

from snapshot_parts import part_of

from rmaplab.check.rebuild import rebuild
from rmaplab.realkernel.image import write_image
from rmaplab.realkernel.reader import read_graph


def read_back(kernel, layout, fill=16):
    """A kernel's state through an image: the graph and its snapshot."""
    image = write_image(kernel, layout, fill=fill)
    graph = read_graph(image.target())
    return graph, graph.snapshot(image.pids), image


def readable(kernel, image):
    """The model's own snapshot without what no reader can find, numbered again."""
    snapshot = kernel.snapshot()
    seen = part_of(snapshot, set(kernel.processes))
    entries = mapped_pages(kernel)
    folios = tuple(
        replace(
            view,
            ksm=None if view.ksm is None else "?",
            pins=view.pins if view.order else 0,
            exclusive=all(folio.exclusive >> page & 1 for page in entries[folio]),
        )
        for view, folio in zip(seen.folios, entries, strict=True)
    )
    processes = tuple(
        replace(
            process,
            vmas=tuple(
                replace(vma, file=None if vma.file is None else f"{image.files[vma.file]:#x}") for vma in process.vmas
            ),
        )
        for process in seen.processes
    )
    swap = tuple(replace(slot, count=len(slot.ptes)) for slot in seen.swap)
    linked = {avc for mm in mms(kernel) for vma in mm.vmas for avc in vma.anon_vma_chain}
    slab = replace(seen.slab, anon_vma=len(seen.anon_vmas), anon_vma_chain=len(linked), bytes=0)
    seen = replace(seen, folios=folios, processes=processes, swap=swap, slab=slab)
    return rebuild(seen, type(kernel)).snapshot()


def mms(kernel):
    return list(dict.fromkeys(process.mm for process in kernel.processes.values()))


def mapped_pages(kernel):
    """The pages of each anonymous folio that entries name, in the order of snapshots; of a huge entry the first."""
    found = {}
    for mm in mms(kernel):
        for huge in mm.page_table.pmds.values():
            found.setdefault(huge.folio, set()).add(0)
        for _, entry in mm.page_table:
            if entry.present and entry.folio.anon:
                found.setdefault(entry.folio, set()).add(entry.page)
    return found


def damage(memory, random):
    """Spoil an image: random bytes, words from elsewhere, pointers to other objects, pages that are gone."""
    numbers = sorted(memory.pages)
    words = [(number, at) for number in numbers for at in range(0, 4096, 8)]
    pointers = [place for place in words if _is_pointer(memory, *place)]
    match random.choice(("bytes", "words", "pointers", "pointers", "pages")):
        case "bytes":
            for _ in range(random.choice((1, 30, 300))):
                memory.pages[random.choice(numbers)][random.randrange(4096)] = random.randrange(256)
        case "words":
            for _ in range(random.choice((1, 50))):
                _copy_word(memory, random.choice(words), random.choice(words))
        case "pointers":
            for _ in range(random.choice((1, 5, 50))):
                _copy_word(memory, random.choice(pointers), random.choice(pointers))
        case "pages":
            for number in random.sample(numbers, max(1, len(numbers) // 10)):
                del memory.pages[number]


def _is_pointer(memory, number, at):
    """To kernel memory, or of a page table to another one."""
    word = int.from_bytes(memory.pages[number][at : at + 8], "little")
    return word >> 48 == 0xFFFF or (word & 1 and word >> 32 == 0)


def _copy_word(memory, source, target):
    word = memory.pages[source[0]][source[1] : source[1] + 8]
    memory.pages[target[0]][target[1] : target[1] + 8] = word


def btf_of(layout):
    """The BTF of a kernel that has these types and no others (include/uapi/linux/btf.h)."""
    strings, types = bytearray(b"\0"), [struct.pack("<4I", 0, 1 << 24, 8, 64)]  # the first type: a number of 8 bytes

    def name(text):
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    def add_struct(structure, size, members):
        """Members are (name, type, offset in bytes); its own number."""
        entries = b"".join(struct.pack("<3I", name(member), kind, 8 * at) for member, kind, at in members)
        types.append(struct.pack("<3I", name(structure), 4 << 24 | len(members), size) + entries)
        return len(types)

    by_structure = {}
    for path, at in layout.offsets.items():
        structure, _, member = path.partition(".")
        by_structure.setdefault(structure, []).append((member, at))
    for structure, members in by_structure.items():
        found = []
        for member, at in members:
            outer, _, inner = member.partition(".")
            found.append((outer, add_struct("", 8, [(inner, 1, 0)]) if inner else 1, at))
        add_struct(structure, layout.sizes.get(structure, 256), found)
    values = b"".join(struct.pack("<Ii", name(enumerator), value) for enumerator, value in layout.enums.items())
    types.append(struct.pack("<3I", 0, 6 << 24 | len(layout.enums), 4) + values)
    body = b"".join(types)
    return struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings)) + body + bytes(strings)
