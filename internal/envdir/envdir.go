// Package envdir reads a directory with a file for each variable, as daemontools
// has it.
package envdir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Read returns the variables of a directory, as NAME=VALUE, and the names of those
// that a program does not get: their files are empty. A value is the first line
// of a file, without blanks at the end, and with newlines for zero bytes. Hidden
// files, directories, FIFOs and names with an equals sign are passed over. A first
// line without an end is an error.
func Read(dir string) (set, unset []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || strings.Contains(name, "=") {
			continue
		}
		path := filepath.Join(dir, name)
		// A link to the null device is an empty file.
		if info, err := os.Stat(path); err == nil && info.Mode()&passed != 0 {
			continue
		}
		line, empty, err := firstLine(path)
		if err != nil {
			return nil, nil, err
		}
		if empty {
			unset = append(unset, name)
			continue
		}
		set = append(set, name+"="+strings.ReplaceAll(strings.TrimRight(line, " \t"), "\x00", "\n"))
	}
	return set, unset, nil
}

// passed are the kinds of files that are passed over.
const passed = fs.ModeDir | fs.ModeNamedPipe | fs.ModeSocket

// maxValue is beyond the length of a variable that a system takes, which the start
// of a program reports.
const maxValue = 1 << 20

// firstLine returns the first line of a file, which may be a device without an end.
func firstLine(path string) (line string, empty bool, err error) {
	// A FIFO that has taken the place of the file would keep the reader waiting.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return "", false, err
	} else if info.Mode()&passed != 0 {
		return "", false, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a file any more")}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxValue))
	if err != nil {
		return "", false, err
	}
	first, _, whole := bytes.Cut(data, []byte("\n"))
	if !whole && len(data) == maxValue {
		return "", false, fmt.Errorf("%s: its first line is longer than %d bytes", path, maxValue-1)
	}
	return string(first), len(data) == 0, nil
}
