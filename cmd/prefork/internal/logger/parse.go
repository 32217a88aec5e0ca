//go:build unix && !solaris && !aix

package logger

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/cmd/prefork/internal/letters"
)

// Usage has the flags and arguments.
const Usage = "[-t|-tt|-ttt] [-s SIZE] [-n NUM] [-N MIN] [-a AGE] [-p PREFIX] [-l LEN] DIR..."

type options struct {
	paths []string

	maxSize  int64 // of a file; 0 if any
	maxFiles int   // that were rotated; 0 if any
	minFiles int   // that a full disk leaves; 0 if all
	maxAge   time.Duration
	format   format
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := letters.New("log")
	f.CountVarP(&o.format.stamp, "stamp", "t", "")
	f.Int64VarP(&o.maxSize, "size", "s", 1000000, "")
	f.IntVarP(&o.maxFiles, "number", "n", 10, "")
	f.IntVarP(&o.minFiles, "min", "N", 0, "")
	f.VarP((*age)(&o.maxAge), "age", "a", "")
	f.StringVarP(&o.format.prefix, "prefix", "p", "", "")
	f.IntVarP(&o.format.length, "length", "l", 0, "")
	if err := letters.Parse(f, args); err != nil {
		return nil, err
	}
	o.paths = f.Args()
	switch {
	case o.format.stamp > 3:
		return nil, errors.New("-t is given up to 3 times")
	case o.maxSize < 0 || o.maxFiles < 0 || o.minFiles < 0 || o.format.length < 0:
		return nil, errors.New("a number is less than 0")
	case o.maxFiles > 0 && o.minFiles >= o.maxFiles:
		return nil, fmt.Errorf("-N %d is not less than -n %d", o.minFiles, o.maxFiles)
	case strings.ContainsRune(o.format.prefix, '\n'):
		return nil, errors.New("the prefix has several lines")
	case len(o.paths) == 0 || slices.Contains(o.paths, ""):
		return nil, errors.New("no directory")
	}
	for _, dir := range o.paths {
		if dir[0] == '+' {
			return nil, fmt.Errorf("%q is the pattern of another logger; a directory of that name is ./%s", dir, dir)
		}
	}
	return o, nil
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
