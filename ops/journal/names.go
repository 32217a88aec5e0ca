package journal

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/ops/record"
)

// rotatedLayout is the layout of the time in the names of rotated files.
const rotatedLayout = "2006-01-02T15-04-05.000000000"

// rotationReasons are the reasons that a name can contain.
var rotationReasons = []string{record.ReasonSize, record.ReasonAge, record.ReasonRequest}

// fileNames are the names of the files of a journal, for example of web.journal:
//
//	web.journal                                            current file
//	web-2026-11-25T07-00-00.000000000-12-size.journal      rotated file
//	web.journal.lock                                       lock
//
// The number of a rotated file, and not its time, decides on the order: the clock
// may go back. Files without a number are older, from versions before it existed.
type fileNames struct{ current, stem, ext string }

func namesOf(path string) fileNames {
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	return fileNames{base, strings.TrimSuffix(base, ext), ext}
}

// A rotatedFile is the content of the name of a rotated file.
type rotatedFile struct {
	name   string
	time   time.Time // by the clock of that moment
	number int64     // 0 if the name has none
}

// rotated returns the name for a file that is rotated after the others.
func (n fileNames) rotated(others []rotatedFile, reason string, now time.Time) (string, error) {
	last := int64(0)
	if len(others) > 0 {
		last = others[len(others)-1].number
	}
	if last == math.MaxInt64 {
		return "", fmt.Errorf("rotated file %s has the highest number: remove it", others[len(others)-1].name)
	}
	return n.rotatedName(now, last+1, reason), nil
}

func (n fileNames) rotatedName(t time.Time, number int64, reason string) string {
	return fmt.Sprintf("%s-%s-%d-%s%s", n.stem, t.UTC().Format(rotatedLayout), number, reason, n.ext)
}

// longest returns the longest name that a file of the journal can have.
func (n fileNames) longest() string {
	return n.rotatedName(time.Time{}, math.MaxInt64, record.ReasonRequest)
}

// parse parses the name of a rotated file of this journal. It refuses those of
// another one whose name begins or ends like this one's.
func (n fileNames) parse(name string) (f rotatedFile, ok bool) {
	middle, hasStem := strings.CutPrefix(name, n.stem+"-")
	middle, hasExt := strings.CutSuffix(middle, n.ext)
	if !hasStem || !hasExt || len(middle) < len(rotatedLayout) {
		return rotatedFile{}, false
	}
	clock, rest := middle[:len(rotatedLayout)], middle[len(rotatedLayout):]
	t, err := time.Parse(rotatedLayout, clock)
	if err != nil || t.Format(rotatedLayout) != clock {
		return rotatedFile{}, false
	}
	rest, ok = strings.CutPrefix(rest, "-")
	if digits, reason, numbered := strings.Cut(rest, "-"); ok && numbered {
		f.number, err = strconv.ParseInt(digits, 10, 64)
		ok = err == nil && f.number > 0 && strconv.FormatInt(f.number, 10) == digits
		rest = reason
	}
	f.name, f.time = name, t
	return f, ok && slices.Contains(rotationReasons, rest)
}

// sorted returns those of the names that are names of rotated files, oldest
// first.
func (n fileNames) sorted(names []string) (files []rotatedFile) {
	for _, name := range names {
		if f, ok := n.parse(name); ok {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b rotatedFile) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.name, b.name))
	})
	return files
}

// check returns an error if the current file could be taken for a file of
// another journal.
func (n fileNames) check() error {
	// A name of a rotated file contains its journal's name up to a hyphen.
	for i := range n.current {
		if n.current[i] != '-' {
			continue
		}
		for _, ext := range []string{n.ext, ""} {
			if _, ok := (fileNames{stem: n.current[:i], ext: ext}).parse(n.current); ok {
				return fmt.Errorf("%s is a name for a rotated file of another journal: use another name", n.current)
			}
		}
	}
	if n.ext == lockSuffix {
		return fmt.Errorf("%s is a name for the lock of another journal: use another name", n.current)
	}
	return nil
}
