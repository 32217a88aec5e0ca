// Package envdir reads a directory with a file for each variable, as daemontools
// has it.
package envdir

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Read returns the variables of a directory, as NAME=VALUE, and the names of those
// that a program does not get: their files are empty. A value is the first line
// of a file, without blanks at the end, and with newlines for zero bytes. Hidden
// files, directories, FIFOs and names with an equals sign are passed over.
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
		// A FIFO could keep the reader waiting. A link to the null device is an empty file.
		if info, err := os.Stat(path); err == nil && info.Mode()&(fs.ModeDir|fs.ModeNamedPipe|fs.ModeSocket) != 0 {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		if len(data) == 0 {
			unset = append(unset, name)
			continue
		}
		line, _, _ := strings.Cut(string(data), "\n")
		set = append(set, name+"="+strings.ReplaceAll(strings.TrimRight(line, " \t"), "\x00", "\n"))
	}
	return set, unset, nil
}
