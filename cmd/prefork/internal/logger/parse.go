//go:build unix && !solaris && !aix

package logger

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/prefork-go/prefork/cmd/prefork/internal/letters"
)

// Usage has the flags and arguments.
const Usage = "[-t|-tt|-ttt] [-s SIZE] [-n NUM] [-N MIN] [-a AGE] [-z] [-p PREFIX] [-l LEN] [-r CHAR] [-R CHARS] [--] [+PATTERN|-PATTERN]... DIR..."

type options struct {
	targets []target
	stamp   int        // the number of -t
	length  int        // of a line at most; 0 if any
	replace *[256]byte // the new value of each byte; nil if they stay
}

// A target is a directory of the command line.
type target struct {
	path string
	settings
}

// settings are those of a directory, which its file config can change.
type settings struct {
	maxSize   int64 // of a file; 0 if any
	maxFiles  int   // that were rotated; 0 if any
	minFiles  int   // that a full disk leaves; 0 if all
	maxAge    time.Duration
	prefix    string
	patterns  []pattern
	processor processor
}

func parse(args []string) (*options, error) {
	o, s := &options{}, settings{}
	char, chars := "", ""
	f := letters.New("log")
	f.CountVarP(&o.stamp, "stamp", "t", "")
	f.Int64VarP(&s.maxSize, "size", "s", 1000000, "")
	f.IntVarP(&s.maxFiles, "number", "n", 10, "")
	f.IntVarP(&s.minFiles, "min", "N", 0, "")
	f.VarP((*age)(&s.maxAge), "age", "a", "")
	f.BoolVarP(&s.processor.gzip, "compress", "z", false, "")
	f.StringVarP(&s.prefix, "prefix", "p", "", "")
	f.IntVarP(&o.length, "length", "l", 0, "")
	f.BoolP("verbose", "v", false, "") // of svlogd, without effect, as is -b
	f.IntP("buffer", "b", 0, "")
	f.StringVarP(&char, "replace", "r", "", "")
	f.StringVarP(&chars, "replace-also", "R", "", "")
	if err := letters.Parse(f, args); err != nil {
		if _, ok := errors.AsType[*pflag.NotExistError](err); ok {
			err = fmt.Errorf("%w; a pattern that begins with - comes after --", err)
		}
		return nil, err
	}
	switch {
	case s.maxSize < 0 || s.maxFiles < 0 || s.minFiles < 0 || o.length < 0:
		return nil, errors.New("a number is less than 0")
	case s.maxFiles > 0 && s.minFiles >= s.maxFiles:
		return nil, fmt.Errorf("-N %d is not less than -n %d", s.minFiles, s.maxFiles)
	case strings.ContainsRune(s.prefix, '\n'):
		return nil, errors.New("the prefix has several lines")
	case f.Changed("replace") && len(char) != 1 || char == "\n":
		return nil, fmt.Errorf("-r %q: it is not one character", char)
	}
	o.stamp = min(o.stamp, 3)
	if char != "" || chars != "" {
		o.replace = replacement(char, chars)
	}
	return o, o.addScript(f.Args(), s)
}

// addScript adds directories, each with the patterns before it.
func (o *options) addScript(args []string, s settings) error {
	used := true
	for _, arg := range args {
		switch {
		case arg == "":
			return errors.New("no directory")
		case arg[0] != '+' && arg[0] != '-':
			o.targets = append(o.targets, target{arg, s})
			used = true
		case strings.Contains(arg, "\n"):
			return fmt.Errorf("the pattern %q has several lines", arg)
		default:
			s.patterns = append(s.patterns, pattern{action: arg[0], text: arg[1:]})
			used = false
		}
	}
	switch last := args; {
	case !used:
		return fmt.Errorf("no directory after the pattern %s", last[len(last)-1])
	case len(o.targets) == 0:
		return errors.New("no directory")
	}
	return nil
}

// replacement has bytes that cannot be printed, and others, become one.
func replacement(char, others string) *[256]byte {
	if char == "" {
		char = "_"
	}
	var table [256]byte
	for i := range table {
		table[i] = byte(i)
		if b := byte(i); b != '\n' && (b < ' ' || b > '~' || strings.IndexByte(others, b) >= 0) {
			table[i] = char[0]
		}
	}
	return &table
}

// age is a duration, or a number of seconds.
type age time.Duration

func (a *age) Set(text string) error {
	d, err := time.ParseDuration(text)
	if seconds, err2 := strconv.ParseUint(text, 10, 32); err2 == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < 0 {
		return errors.New("it is a number of seconds, or a duration such as 24h")
	}
	*a = age(d)
	return nil
}

func (a *age) String() string { return time.Duration(*a).String() }
func (a *age) Type() string   { return "age" }
