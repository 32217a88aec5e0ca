package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A LineError is returned for a line that is not a record. The line is damaged,
// or its writer died before the end of the line. Other lines are not affected.
type LineError struct {
	Path   string // empty if unknown
	Offset int64  // of the line, in bytes from the start of the file
	Err    error  // io.ErrUnexpectedEOF if the last line has no newline
}

func (e *LineError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("journal: line at byte %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("journal %s: line at byte %d: %v", e.Path, e.Offset, e.Err)
}

func (e *LineError) Unwrap() error { return e.Err }

// Read returns an iterator over the records of a journal and its rotated files,
// from the oldest to the newest. No process needs to have the journal open, and
// it may be written and rotated during the iteration. Records that were written
// before are returned once, unless their file is deleted during the iteration
// because of Config.KeepFiles or Config.KeepDays. Records that are written
// later may be missing from the end.
//
// A line that is not a record yields a *LineError, and the iteration continues.
// After any other error it ends. The caller should count or report a *LineError
// rather than stop. If there is no journal, the error matches
// fs.ErrNotExist.
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

// ReadBackward is Read from the newest record to the oldest. It does not return
// records that are written during the iteration.
func ReadBackward(path string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		last, older, err := openFiles(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer last.Close()
		if last != nil && !readFile(path, last, yield, decodeFileBackward) {
			return
		}
		for _, name := range slices.Backward(older) {
			if !readRotated(name, yield, decodeFileBackward) {
				return
			}
		}
	}
}

func decodeFileBackward(f *os.File) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		info, err := f.Stat()
		if err != nil {
			yield(Record{}, err)
			return
		}
		DecodeBackward(f, info.Size())(yield)
	}
}

// decoder is Decode or its counterpart for the other direction.
type decoder func(*os.File) iter.Seq2[Record, error]

// readRotated reads a rotated file, and reports whether to continue.
func readRotated(name string, yield func(Record, error) bool, decode decoder) bool {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true // deleted because of KeepFiles or KeepDays
	}
	if err != nil {
		yield(Record{}, err)
		return false
	}
	defer f.Close()
	return readFile(name, f, yield, decode)
}

// readFile reads one file, and reports whether to continue.
func readFile(name string, f *os.File, yield func(Record, error) bool, decode decoder) bool {
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

// rotatedLayout is the layout of the time in the names of rotated files, for
// example web-2026-11-25T07-00-00.000000000-size.journal.
const rotatedLayout = "2006-01-02T15-04-05.000000000"

// openFiles opens the current file, which is nil if it is missing, and returns
// the names of the files that were rotated before it, oldest first. The current
// file is opened first, so that a rotation between the two steps loses nothing.
func openFiles(path string) (last *os.File, older []string, err error) {
	last, openErr := os.Open(path)
	if openErr != nil && !errors.Is(openErr, fs.ErrNotExist) {
		return nil, nil, openErr
	}
	older, err = rotatedBefore(last, path)
	if err == nil && last == nil && len(older) == 0 {
		err = openErr
	}
	if err != nil {
		last.Close()
		return nil, nil, err
	}
	return last, older, nil
}

// rotatedBefore returns the names of the rotated files of a journal, oldest
// first. If last has been rotated since it was opened, rotatedBefore leaves out
// that file and the later ones.
func rotatedBefore(last *os.File, path string) ([]string, error) {
	names, err := rotatedFiles(path)
	if err != nil || last == nil {
		return names, err
	}
	info, err := last.Stat()
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		if other, err := os.Stat(name); err == nil && os.SameFile(info, other) {
			return names[:i], nil
		}
	}
	return names, nil
}

// rotatedFiles returns the names of the rotated files of a journal, oldest
// first.
func rotatedFiles(path string) (names []string, err error) {
	ext := filepath.Ext(path)
	prefix := strings.TrimSuffix(filepath.Base(path), ext) + "-"
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for _, e := range entries { // sorted by name, and so by time
		middle, hasPrefix := strings.CutPrefix(e.Name(), prefix)
		middle, hasExt := strings.CutSuffix(middle, ext)
		if !hasPrefix || !hasExt || len(middle) < len(rotatedLayout) {
			continue
		}
		if _, err := time.Parse(rotatedLayout, middle[:len(rotatedLayout)]); err == nil {
			names = append(names, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return names, nil
}
