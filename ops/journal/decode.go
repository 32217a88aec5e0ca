package journal

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"slices"

	"github.com/prefork-go/prefork/ops/record"
)

// errLong is the error of a line that exceeds record.MaxLine.
var errLong = errors.New("line is longer than any record")

// Decode returns an iterator over the records of r. It treats damaged lines as
// Read does.
func Decode(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		for offset := int64(0); ; {
			line, n, err := nextLine(in)
			switch {
			case err == io.EOF && n == 0:
				return
			case err != nil && err != io.EOF && err != errLong:
				yield(Record{}, err)
				return
			}
			if !yieldLine(yield, line, offset, err) {
				return
			}
			offset += n
		}
	}
}

// nextLine reads a line of n bytes. It returns at most the first bytes of a
// line that exceeds record.MaxLine, with errLong.
func nextLine(in *bufio.Reader) (line []byte, n int64, err error) {
	for {
		part, err := in.ReadSlice('\n')
		n += int64(len(part))
		if len(line) <= record.MaxLine {
			line = append(line, part...)
		}
		if err != bufio.ErrBufferFull {
			if err == nil && n-1 > record.MaxLine {
				err = errLong
			}
			return line, n, err
		}
	}
}

// yieldLine yields the record or the LineError of a line. err is io.EOF if the
// line has no newline.
func yieldLine(yield func(Record, error) bool, line []byte, offset int64, err error) bool {
	switch {
	case err == io.EOF:
		return yield(Record{}, &LineError{Offset: offset, Err: io.ErrUnexpectedEOF})
	case err != nil:
		return yield(Record{}, &LineError{Offset: offset, Err: err})
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) == 0 {
		return true // written to end the line of another writer
	}
	rec, err := record.Parse(line)
	if err != nil {
		return yield(Record{}, &LineError{Offset: offset, Err: err})
	}
	return yield(rec, nil)
}

// DecodeBackward returns an iterator over the records in the first size bytes
// of r, from the last to the first. It treats damaged lines as Read does.
func DecodeBackward(r io.ReaderAt, size int64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		d := backwardDecoder{yield: yield, atEnd: true}
		buf := make([]byte, 64<<10)
		for end := size; end > 0; {
			block := buf[:min(end, int64(len(buf)))]
			end -= int64(len(block))
			if n, err := r.ReadAt(block, end); n < len(block) {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF // r has fewer than size bytes
				}
				yield(Record{}, err)
				return
			}
			if !d.decodeBlock(block, end) {
				return
			}
		}
		d.yieldHead(nil, 0)
	}
}

// backwardDecoder decodes consecutive blocks of a file, from the last to the
// first.
type backwardDecoder struct {
	yield func(Record, error) bool
	tail  []byte // end of the line that starts in an earlier block
	long  bool   // tail lacks a part of its line
	atEnd bool   // no newline was found yet, so the line has no newline
}

// decodeBlock yields the lines that start in the block, and keeps the rest for
// the next block. It reports whether to continue.
func (d *backwardDecoder) decodeBlock(block []byte, offset int64) bool {
	for {
		i := bytes.LastIndexByte(block, '\n')
		if i < 0 {
			break
		}
		if !d.yieldHead(block[i+1:], offset+int64(i)+1) {
			return false
		}
		block = block[:i]
	}
	if len(d.tail) > record.MaxLine {
		d.long = true
	} else {
		d.tail = append(slices.Clone(block), d.tail...)
	}
	return true
}

// yieldHead yields the line that consists of head and the tail. It reports
// whether to continue.
func (d *backwardDecoder) yieldHead(head []byte, offset int64) bool {
	line := append(slices.Clone(head), d.tail...)
	var err error
	switch {
	case d.atEnd:
		d.atEnd = false
		if len(line) == 0 {
			return true
		}
		err = io.EOF
	case d.long || len(line) > record.MaxLine:
		err = errLong
	}
	d.tail, d.long = nil, false
	return yieldLine(d.yield, line, offset, err)
}
