//go:build unix

package inherit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
)

// checkProgram tells why a file cannot be a program of the kind that self is, the file of the one that runs here. What it
// says follows the name of the file. The package debug/elf would do, and would be linked by every worker.
func checkProgram(file io.ReaderAt, size int64, self io.ReaderAt) error {
	ours, _, err := readELF(self)
	if err != nil || ours == nil {
		return nil // this system has programs of another format
	}
	theirs, begin, err := readELF(file)
	switch {
	case err != nil:
		return fmt.Errorf("cannot be read: %w", err)
	case bytes.HasPrefix(begin, []byte("#!")):
		// One that does not exec its program would stand between that and this process, and the program would not be known
		// as what it is: each start would make one more manager.
		return errors.New("is a script, and this process runs a program: put the program itself there")
	case bytes.HasPrefix([]byte(elfMagic), begin): // also an empty one
		return cut(size, uint64(ours.size()))
	case theirs == nil:
		return fmt.Errorf("is no program: it begins with %q, and not as programs do here", begin[:min(4, len(begin))])
	case len(begin) < theirs.size():
		return cut(size, uint64(theirs.size()))
	case theirs.kind != ours.kind:
		return fmt.Errorf("is a program for another machine (%v, this process runs %v): build it for %s/%s", theirs.kind, ours.kind, runtime.GOOS, runtime.GOARCH)
	case theirs.typ != elfExec && theirs.typ != elfDyn || theirs.segments.n == 0:
		return errors.New("is no program but a part of one: link it")
	}
	end, err := theirs.end(file, size)
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if end > uint64(size) {
		return cut(size, end)
	}
	return nil
}

func cut(size int64, of uint64) error {
	return fmt.Errorf("ends at byte %d of %d: it was copied only in part; copy it to another name and rename it when it is whole", size, of)
}

const (
	elfMagic = "\x7fELF"
	elfExec  = 2
	elfDyn   = 3 // a program that can be loaded anywhere
	unused   = 0 // a segment or section that is none
	noBits   = 8 // a section that takes no room in the file
)

// elfKind is for which machines a file is.
type elfKind struct {
	wide    bool // 64 bits
	order   byte // 1 little, 2 big endian
	machine uint16
}

func (k elfKind) String() string {
	bits, order := 32, "little"
	if k.wide {
		bits = 64
	}
	if k.order == 2 {
		order = "big"
	}
	return fmt.Sprintf("%d bits, %s endian, ELF machine %d", bits, order, k.machine)
}

// elfHeader is what counts here of the header of an ELF file.
type elfHeader struct {
	kind               elfKind
	typ                uint16
	segments, sections elfTable
}

// elfTable is where the headers of segments or sections stand.
type elfTable struct {
	off     uint64
	size, n uint16
}

func (t elfTable) end() uint64 {
	if t.n == 0 {
		return 0 // who strips a file of its sections may leave the offset
	}
	return plus(t.off, uint64(t.size)*uint64(t.n))
}

func (h *elfHeader) size() int {
	if h.kind.wide {
		return 64
	}
	return 52
}

// readELF reads the header of a file, and returns the file's begin, too; nil where it has none. What the begin does not
// hold is zero in it.
func readELF(file io.ReaderAt) (h *elfHeader, begin []byte, err error) {
	var buf [64]byte
	n, err := file.ReadAt(buf[:], 0)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	if string(buf[:len(elfMagic)]) != elfMagic {
		return nil, buf[:n], nil
	}
	h = &elfHeader{kind: elfKind{wide: buf[4] == 2, order: buf[5]}}
	f := h.fields(buf[:])
	h.kind.machine, h.typ = f.half(18, 18), f.half(16, 16)
	h.segments = elfTable{f.address(28, 32), f.half(42, 54), f.half(44, 56)}
	h.sections = elfTable{f.address(32, 40), f.half(46, 58), f.half(48, 60)}
	return h, buf[:n], nil
}

// end is where the file ends by what its headers say. It is the end of the tables where the file does not hold them.
func (h *elfHeader) end(file io.ReaderAt, size int64) (uint64, error) {
	end := max(h.segments.end(), h.sections.end())
	if end > uint64(size) {
		return end, nil
	}
	segments, err := h.read(file, h.segments, 32, 56)
	if err != nil {
		return 0, err
	}
	for _, f := range segments {
		if f.word(0, 0) != unused {
			end = max(end, plus(f.address(4, 8), f.address(16, 32)))
		}
	}
	sections, err := h.read(file, h.sections, 40, 64)
	if err != nil {
		return 0, err
	}
	for _, f := range sections {
		if kind := f.word(4, 4); kind != unused && kind != noBits {
			end = max(end, plus(f.address(16, 24), f.address(20, 32)))
		}
	}
	return end, nil
}

// read reads a table, whose entries have one size in files of 32 bits and another in those of 64.
func (h *elfHeader) read(file io.ReaderAt, t elfTable, narrow, wide uint16) ([]elfFields, error) {
	want := narrow
	if h.kind.wide {
		want = wide
	}
	if t.n == 0 {
		return nil, nil
	}
	if t.size != want {
		return nil, fmt.Errorf("its headers have %d bytes and not %d", t.size, want)
	}
	buf := make([]byte, int(t.size)*int(t.n))
	if n, err := file.ReadAt(buf, int64(t.off)); n < len(buf) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	var all []elfFields
	for entry := range slices.Chunk(buf, int(t.size)) {
		all = append(all, h.fields(entry))
	}
	return all, nil
}

func (h *elfHeader) fields(b []byte) elfFields {
	f := elfFields{b: b, wide: h.kind.wide, order: binary.LittleEndian}
	if h.kind.order == 2 {
		f.order = binary.BigEndian
	}
	return f
}

// elfFields reads fields, each of which stands in one place in files of 32 bits and in another in those of 64.
type elfFields struct {
	b     []byte
	wide  bool
	order binary.ByteOrder
}

func (f elfFields) at(narrow, wide int) []byte {
	if f.wide {
		return f.b[wide:]
	}
	return f.b[narrow:]
}

func (f elfFields) half(narrow, wide int) uint16 { return f.order.Uint16(f.at(narrow, wide)) }
func (f elfFields) word(narrow, wide int) uint32 { return f.order.Uint32(f.at(narrow, wide)) }

func (f elfFields) address(narrow, wide int) uint64 {
	if f.wide {
		return f.order.Uint64(f.b[wide:])
	}
	return uint64(f.word(narrow, wide))
}

// plus is a sum of which an overflow is no small number.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
