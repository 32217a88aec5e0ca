package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// LineError is a line that is no record: cut off because its writer died in the middle of it, or damaged. The records
// before and behind it are read all the same.
type LineError struct {
	Path   string // "" where it is not known
	Offset int64  // in bytes from the beginning of the file
	Err    error  // io.ErrUnexpectedEOF for a last line without an end
}

func (e *LineError) Error() string {
	return fmt.Sprintf("journal %s: line at byte %d: %v", e.Path, e.Offset, e.Err)
}
func (e *LineError) Unwrap() error { return e.Err }

// Read reads a journal, rotated files first, from the oldest record to the newest. Nobody need have it open, and it may be
// written and rotated meanwhile: each record that was written before comes once, but those of files that are removed
// for their age or number meanwhile; of what is written later, the first records may come. What is no record gives a
// *LineError, behind which it goes on; any other error is the last that comes. That there is no such file is an error too.
func Read(path string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		last, older, err := openFiles(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer last.Close()
		decode := func(f *os.File) iter.Seq2[Record, error] { return Decode(f) }
		for _, name := range older {
			if !readRotated(name, yield, decode) {
				return
			}
		}
		if last != nil {
			readFile(path, last, yield, decode)
		}
	}
}

// ReadBackward is Read from the newest record to the oldest; of what is written later, nothing comes.
func ReadBackward(path string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		last, older, err := openFiles(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer last.Close()
		decode := func(f *os.File) iter.Seq2[Record, error] {
			return func(yield func(Record, error) bool) {
				info, err := f.Stat()
				if err != nil {
					yield(Record{}, err)
					return
				}
				DecodeBackward(f, info.Size())(yield)
			}
		}
		if last != nil && !readFile(path, last, yield, decode) {
			return
		}
		for _, name := range slices.Backward(older) {
			if !readRotated(name, yield, decode) {
				return
			}
		}
	}
}

// readRotated reads a rotated file, and tells whether to go on.
func readRotated(name string, yield func(Record, error) bool, decode func(*os.File) iter.Seq2[Record, error]) bool {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true // it was removed for its age meanwhile
	}
	if err != nil {
		yield(Record{}, err)
		return false
	}
	defer f.Close()
	return readFile(name, f, yield, decode)
}

// readFile reads one file, and tells whether to go on.
func readFile(name string, f *os.File, yield func(Record, error) bool, decode func(*os.File) iter.Seq2[Record, error]) bool {
	for rec, err := range decode(f) {
		var line *LineError
		isLine := errors.As(err, &line)
		if isLine {
			line.Path = name
		}
		if !yield(rec, err) || err != nil && !isLine {
			return false
		}
	}
	return true
}

// rotatedLayout is the time in the names of rotated files: web-2026-11-25T07-00-00.000000000-size.journal.
const rotatedLayout = "2006-01-02T15-04-05.000000000"

// openFiles opens the file that is being written, which is nil if there is none at the moment, and names those that were
// rotated before it, the oldest first. In this order: a file that is rotated between the two is not missed.
func openFiles(path string) (last *os.File, older []string, err error) {
	last, missing := os.Open(path)
	if missing != nil && !errors.Is(missing, fs.ErrNotExist) {
		return nil, nil, missing
	}
	older, err = rotatedBefore(last, path)
	if err == nil && last == nil && len(older) == 0 {
		err = missing
	}
	if err != nil {
		last.Close()
		return nil, nil, err
	}
	return last, older, nil
}

// rotatedBefore names the rotated files of a journal, the oldest first. If last is one of them by now, those from it on are left
// out: what they have was written after last was opened.
func rotatedBefore(last *os.File, path string) ([]string, error) {
	all, err := rotated(path)
	if err != nil || last == nil {
		return all, err
	}
	info, err := last.Stat()
	if err != nil {
		return nil, err
	}
	for i, name := range all {
		if other, err := os.Stat(name); err == nil && os.SameFile(info, other) {
			return all[:i], nil
		}
	}
	return all, nil
}

// rotated names the rotated files of a journal, the oldest first.
func rotated(path string) (all []string, err error) {
	ext := filepath.Ext(path)
	prefix := strings.TrimSuffix(filepath.Base(path), ext) + "-"
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for _, e := range entries { // in order of their names, which is that of time
		middle, ok := strings.CutPrefix(e.Name(), prefix)
		if middle, ok = cutSuffix(middle, ext, ok); !ok || len(middle) < len(rotatedLayout) {
			continue
		}
		if _, err := time.Parse(rotatedLayout, middle[:len(rotatedLayout)]); err == nil {
			all = append(all, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return all, nil
}

func cutSuffix(s, suffix string, ok bool) (string, bool) {
	rest, has := strings.CutSuffix(s, suffix)
	return rest, ok && has
}

// Decode reads the records of r, as Read does.
func Decode(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		for at := int64(0); ; {
			line, n, err := nextLine(in)
			from := at
			at += n
			switch {
			case err == io.EOF && n == 0:
				return
			case err != nil && err != io.EOF && err != errLong:
				yield(Record{}, err)
				return
			}
			if !give(yield, line, from, err) {
				return
			}
		}
	}
}

var errLong = errors.New("it is longer than any record")

// nextLine reads a line, of which it keeps no more than maxLine bytes, and says how many it has read.
func nextLine(in *bufio.Reader) (line []byte, n int64, err error) {
	for {
		part, err := in.ReadSlice('\n')
		n += int64(len(part))
		if len(line) <= maxLine {
			line = append(line, part...)
		}
		if err != bufio.ErrBufferFull {
			if err == nil && n-1 > maxLine {
				err = errLong
			}
			return line, n, err
		}
	}
}

// give gives what a line is to the reader. err is io.EOF for one without an end.
func give(yield func(Record, error) bool, line []byte, at int64, err error) bool {
	switch {
	case err == io.EOF:
		return yield(Record{}, &LineError{Offset: at, Err: io.ErrUnexpectedEOF})
	case err != nil:
		return yield(Record{}, &LineError{Offset: at, Err: err})
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) == 0 {
		return true // where a writer has ended what another had begun
	}
	rec, err := parse(line)
	if err != nil {
		return yield(Record{}, &LineError{Offset: at, Err: err})
	}
	return yield(rec, nil)
}

// DecodeBackward reads the records in the first size bytes of r from the last to the first, as ReadBackward does.
func DecodeBackward(r io.ReaderAt, size int64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		const block = 64 << 10
		var tail []byte // of the line whose beginning was not found yet
		long := false   // and of which only a part is kept
		end := size     // of that line, or of its part
		last := true    // nothing was given yet: this line has no end, or is empty
		buf := make([]byte, block)
		emit := func(head []byte, at int64) bool {
			line := append(slices.Clone(head), tail...)
			var err error
			switch {
			case last:
				last = false
				if len(line) == 0 {
					return true
				}
				err = io.EOF
			case long || len(line) > maxLine:
				err = errLong
			}
			tail, long = nil, false
			return give(yield, line, at, err)
		}
		for end > 0 {
			n := min(end, block)
			part := buf[:n]
			if got, err := r.ReadAt(part, end-n); got < int(n) {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF // it is shorter than it was said to be
				}
				yield(Record{}, err)
				return
			}
			for {
				i := bytes.LastIndexByte(part, '\n')
				if i < 0 {
					break
				}
				if !emit(part[i+1:], end-n+int64(i)+1) {
					return
				}
				part = part[:i]
			}
			if len(tail) > maxLine {
				long = true
			} else {
				tail = append(slices.Clone(part), tail...)
			}
			end -= n
		}
		emit(nil, 0)
	}
}
