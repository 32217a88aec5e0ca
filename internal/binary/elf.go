//go:build unix

package binary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"runtime"
)

// Sizes and offsets in ELF files of this process's word size.
const (
	wide        = bits.UintSize / 64 // 0 or 1
	headerSize  = 52 + 12*wide
	segmentSize = 32 + 24*wide
	magic       = "\x7fELF"
)

// checkProgram returns an error if file, of the given size, was cut short or
// cannot be a program like self, the file of this process. The error follows the
// file's name. It avoids debug/elf, which every worker would have to link.
func checkProgram(file io.ReaderAt, size int64, self io.ReaderAt) error {
	ours, err := io.ReadAll(io.NewSectionReader(self, 0, headerSize))
	if err != nil || len(ours) < headerSize || string(ours[:4]) != magic {
		return nil // programs have another format on this system
	}
	head, err := io.ReadAll(io.NewSectionReader(file, 0, headerSize))
	begin, end := head[:min(4, len(head))], uint64(headerSize)
	switch {
	case err != nil:
	case string(head[:min(2, len(head))]) == "#!":
		// A script that does not exec its program would be between the program and
		// this process, which would not recognize it: each start would add a manager.
		return errors.New("is a script, and this process runs a program: put the program itself there")
	case !bytes.HasPrefix(ours, begin):
		return fmt.Errorf("is not a program: it begins with %q, unlike a program on this system", begin)
	case len(head) < headerSize:
	case !bytes.Equal(head[4:6], ours[4:6]) || !bytes.Equal(head[18:20], ours[18:20]):
		return fmt.Errorf("is a program for another machine: build it for %s/%s", runtime.GOOS, runtime.GOARCH)
	default:
		end, err = endOfSegments(file, size, head)
	}
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if end > uint64(size) {
		return fmt.Errorf("ends at byte %d of %d: it was copied only in part; copy it to another name and rename it when it is whole", size, end)
	}
	return nil
}

// endOfSegments returns the size that a file with this header needs for all its
// segments.
func endOfSegments(file io.ReaderAt, size int64, head []byte) (end uint64, err error) {
	add := func(a, b uint64) uint64 {
		sum, carry := bits.Add64(a, b, 0)
		return sum | -carry // the largest number after an overflow
	}
	word := func(b []byte) uint64 {
		if wide == 0 {
			return uint64(binary.NativeEndian.Uint32(b))
		}
		return binary.NativeEndian.Uint64(b)
	}
	at, length := word(head[28+4*wide:]), segmentSize*int(binary.NativeEndian.Uint16(head[44+12*wide:]))
	if end = add(at, uint64(length)); length == 0 || end > uint64(size) {
		return end, nil
	}
	table, err := io.ReadAll(io.NewSectionReader(file, int64(at), int64(length)))
	for ; len(table) >= segmentSize; table = table[segmentSize:] {
		if binary.NativeEndian.Uint32(table) != 0 { // an entry that is in use
			end = max(end, add(word(table[4+4*wide:]), word(table[16+16*wide:])))
		}
	}
	return end, err
}
