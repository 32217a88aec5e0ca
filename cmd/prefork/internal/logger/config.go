//go:build unix && !solaris && !aix

package logger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readConfig returns the settings of a directory: those of the command line, in
// place of which come those of its file config.
func readConfig(path string, s settings, report func(string, ...any)) settings {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	text := ""
	if err == nil {
		defer f.Close()
		text, err = readRegular(f)
	}
	if err != nil {
		report("cannot read the configuration: %v", err)
		return s
	}
	s, warnings := parseConfig(text, s)
	for _, warning := range warnings {
		report("%s, %s", path, warning)
	}
	return s
}

// maxConfig bounds the memory for a file that is there by mistake.
const maxConfig = 1 << 20

func readRegular(f *os.File) (string, error) {
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !st.Mode().IsRegular() || st.Size() > maxConfig:
		return "", fmt.Errorf("%s is not a file of up to 1 MiB", f.Name())
	}
	text := make([]byte, st.Size())
	n, err := f.ReadAt(text, 0)
	if n < len(text) {
		return "", err
	}
	return string(text), nil
}

// parseConfig applies lines of a config of svlogd. There is a warning for each line
// that has no effect.
func parseConfig(text string, s settings) (_ settings, warnings []string) {
	s.patterns = slices.Clone(s.patterns)
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if line == "" || line[0] == '#' {
			continue
		}
		if why := s.set(line[0], line[1:]); why != "" {
			warnings = append(warnings, fmt.Sprintf("line %d, %.80q: %s", number, line, why))
		}
	}
	if s.maxFiles > 0 && s.minFiles >= s.maxFiles {
		warnings = append(warnings, fmt.Sprintf("N%d is not less than n%d, and counts as N%d", s.minFiles, s.maxFiles, s.maxFiles-1))
		s.minFiles = s.maxFiles - 1
	}
	return s, warnings
}

// set applies a line of a letter and a value, or returns why it does not.
func (s *settings) set(letter byte, value string) (why string) {
	switch letter {
	case 's', 'n', 'N':
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil {
			return "it is not a number"
		}
		switch letter {
		case 's':
			s.maxSize = int64(n)
		case 'n':
			s.maxFiles = int(min(n, maxFiles))
		case 'N':
			s.minFiles = int(min(n, maxFiles))
		}
	case 't':
		if err := (*age)(&s.maxAge).Set(value); err != nil {
			return err.Error()
		}
	case 'p':
		s.prefix = value
	case '!':
		s.processor = processor{command: value}
	case '+', '-', 'e', 'E':
		s.patterns = append(s.patterns, pattern{letter, value, true})
	case 'u', 'U':
		return "it does not send to a UDP port"
	default:
		return "it is unknown"
	}
	return ""
}

// maxFiles is more files than a directory has.
const maxFiles = 1 << 30
