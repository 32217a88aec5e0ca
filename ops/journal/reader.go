package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
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
//
// A symbolic link at the path is followed. Links, directories and FIFOs with the
// name of a rotated file are ignored.
func Read(path string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := openFiles(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer f.close()
		f.forward(yield)
	}
}

// ReadBackward is Read from the newest record to the oldest. It does not return
// records that are written during the iteration.
func ReadBackward(path string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := openFiles(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer f.close()
		f.backward(yield)
	}
}

// files are the files of a journal that a reader reads.
type files struct {
	folder  *folder
	current *os.File      // nil if missing
	older   []rotatedFile // rotated before current, oldest first
}

// openFiles opens the files of the journal at the path.
func openFiles(path string) (*files, error) {
	dir, err := openFolderToRead(path)
	if err != nil {
		return nil, err
	}
	f, err := newFiles(dir, func() (*os.File, error) { return openCurrent(path) })
	if err != nil {
		dir.close()
	}
	return f, err
}

// readBackward returns an iterator over the records of the journal in a folder,
// without following a link.
func (d *folder) readBackward() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := newFiles(d, func() (*os.File, error) { return d.openToRead(d.names.current) })
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer f.current.Close()
		f.backward(yield)
	}
}

// newFiles opens the current file before it lists the rotated ones, so that a
// rotation between the two steps loses nothing.
func newFiles(dir *folder, open func() (*os.File, error)) (*files, error) {
	current, openErr := open()
	if openErr != nil && !errors.Is(openErr, fs.ErrNotExist) {
		return nil, openErr
	}
	f := &files{folder: dir, current: current}
	all, err := dir.rotatedFiles()
	f.older = f.before(all)
	if err == nil && current == nil && len(f.older) == 0 {
		err = openErr
	}
	if err != nil {
		current.Close()
		return nil, err
	}
	return f, nil
}

// before leaves out the current file and the later ones, if it has been rotated
// since it was opened.
func (f *files) before(all []rotatedFile) []rotatedFile {
	for i := len(all) - 1; i >= 0 && f.current != nil; i-- {
		if f.folder.holds(all[i].name, f.current) {
			return all[:i]
		}
	}
	return all
}

func (f *files) close() {
	f.current.Close()
	f.folder.close()
}

func (f *files) forward(yield func(Record, error) bool) {
	decode := func(f *os.File) iter.Seq2[Record, error] { return Decode(f) }
	for _, r := range f.older {
		if !f.readRotated(r.name, yield, decode) {
			return
		}
	}
	if f.current != nil {
		readFile(f.folder.path, f.current, yield, decode)
	}
}

func (f *files) backward(yield func(Record, error) bool) {
	if f.current != nil && !readFile(f.folder.path, f.current, yield, decodeFileBackward) {
		return
	}
	for _, r := range slices.Backward(f.older) {
		if !f.readRotated(r.name, yield, decodeFileBackward) {
			return
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
func (f *files) readRotated(name string, yield func(Record, error) bool, decode decoder) bool {
	file, err := f.folder.openToRead(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true // not ours, or deleted because of KeepFiles or KeepDays
	}
	if err != nil {
		yield(Record{}, err)
		return false
	}
	defer file.Close()
	return readFile(filepath.Join(filepath.Dir(f.folder.path), name), file, yield, decode)
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

// regular returns the file, or closes it if it is not a regular one.
func regular(f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: f.Name(), Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
