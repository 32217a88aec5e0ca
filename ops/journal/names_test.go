//go:build unix

package journal

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/record"
)

// A file with the name of a rotated file of one journal is none of another's,
// whatever the two names (34).
func TestNamesOfOtherJournals(t *testing.T) {
	stamp := "2026-11-25T07-00-00.000000000"
	journals := []string{
		"app", "app.log", "app.log.1", "app-x.log", "app-x", "app.", ".log", "app-", "app-.log", "app.log-x", "-app.log", "-",
		"app-size", "app-size.log", "app-1-size.log", "app-2026-11-25.log", "app-" + stamp, "app-" + stamp + ".log",
		"app-" + stamp + "-1.log", "app.journal", "app.log.journal", "x.app.log",
	}
	for _, a := range journals {
		if err := namesOf(a).check(); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		for _, reason := range rotationReasons {
			name := namesOf(a).rotatedName(time.Now(), 12, reason)
			old := strings.Replace(name, "-12-"+reason, "-"+reason, 1) // of an earlier version
			for _, b := range journals {
				for _, n := range []string{name, old} {
					if _, ok := namesOf(b).parse(n); ok != (a == b) {
						t.Errorf("%s of journal %s: %v for journal %s", n, a, ok, b)
					}
				}
				if _, ok := namesOf(b).parse(a); ok {
					t.Errorf("journal %s is a rotated file of %s", a, b)
				}
			}
		}
	}
	for _, name := range []string{
		"app-" + stamp + "-size.log", "app-" + stamp + "-1-age", "-" + stamp + "-request.log", "app.lock", ".lock",
		"a-b-" + stamp + "-3-request.log",
	} {
		if err := namesOf(name).check(); err == nil {
			t.Errorf("a journal can be named %s", name)
		}
	}
}

// Names are matched exactly.
func TestRotatedNames(t *testing.T) {
	n := namesOf("/d/app.log")
	for _, name := range []string{
		"app-2026-11-25T07-00-00.000000000-size.log.gz", "app-2026-11-25T07-00-00.000000000-size.LOG",
		"app-2026-11-25T07-00-00,000000000-size.log", "app-2026-11-25T07-00-00.00000000-size.log",
		"app-2026-13-25T07-00-00.000000000-size.log", "app-2026-11-25T07-00-00.000000000.log",
		"app-2026-11-25T07-00-00.000000000-.log", "app-2026-11-25T07-00-00.000000000size.log",
		"app-2026-11-25T07-00-00.000000000-mine.log", "app-2026-11-25T07-00-00.000000000-1.log",
		"app-2026-11-25T07-00-00.000000000-0-size.log", "app-2026-11-25T07-00-00.000000000-01-size.log",
		"app-2026-11-25T07-00-00.000000000-+1-size.log", "app-2026-11-25T07-00-00.000000000--1-size.log",
		"app-2026-11-25T07-00-00.000000000-9223372036854775808-size.log", "app-2026-11-25T07-00-00.000000000-1-2-size.log",
		"app-size.log", "app-.log", "app.log", "app", "", "-", "app-",
	} {
		if f, ok := n.parse(name); ok {
			t.Errorf("%s: %+v", name, f)
		}
	}
	at := time.Date(2026, 11, 25, 7, 0, 0, 5, time.UTC)
	f, ok := n.parse(n.rotatedName(at, 7, record.ReasonAge))
	if !ok || f.number != 7 || !f.time.Equal(at) || f.name != "app-2026-11-25T07-00-00.000000005-7-age.log" {
		t.Errorf("%+v, %v", f, ok)
	}
	if _, err := n.rotated([]rotatedFile{{number: math.MaxInt64}}, record.ReasonSize, at); err == nil {
		t.Error("no error after the highest number")
	}
	if len(n.rotatedName(at, math.MaxInt64, record.ReasonRequest)) != len(n.longest()) {
		t.Error("longest is not the longest")
	}
}

// Rotated files are in the order of their rotation, whatever the clock. Files of
// earlier versions come first (35).
func TestRotatedOrder(t *testing.T) {
	n := namesOf("app.log")
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	want := []string{
		"app-2026-11-01T00-00-00.000000000-size.log", "app-2027-11-02T00-00-00.000000000-age.log",
		n.rotatedName(day(20), 9, record.ReasonSize), n.rotatedName(day(3), 10, record.ReasonSize), n.rotatedName(day(5), 11, record.ReasonAge),
	}
	shuffled := []string{want[4], "other", want[1], want[3], want[0], want[2]}
	var got []string
	files := n.sorted(shuffled)
	for _, f := range files {
		got = append(got, f.name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for others, want := range map[int]string{5: n.rotatedName(day(1), 12, record.ReasonSize), 2: n.rotatedName(day(1), 1, record.ReasonSize), 0: n.rotatedName(day(1), 1, record.ReasonSize)} {
		if next, err := n.rotated(files[:others], record.ReasonSize, day(1)); err != nil || next != want {
			t.Errorf("after %d files %s, %v, want %s", others, next, err, want)
		}
	}
}

// KeepDays deletes the oldest files while they are old. It neither stops at a
// file of the future or of 1970 nor skips files that are not old (35). Such a file
// may have been rotated an hour ago.
func TestExpired(t *testing.T) {
	for _, c := range []struct {
		days string // ages in days, oldest first
		want int
	}{
		{"", 0}, {"3", 0}, {"8", 1}, {"9 8 3", 2}, {"3 9 9", 0}, {"9 3 9", 1},
		{"-365 9 3", 2}, {"-365 3", 0}, {"-365 -365", 0}, {"9 -1 9 -1 3", 3}, {"9 -1", 1},
		{"20000 3", 0}, {"20000", 0}, {"20000 9 3", 2}, {"9 20000 9 3", 3}, {"3 20000 9", 0},
		{"-365 20000 3", 0}, {"20000 -365 3", 0}, {"20000 -365", 0}, {"-365 20000 9 3", 3},
	} {
		var files []rotatedFile
		for _, d := range strings.Fields(c.days) {
			n, _ := strconv.Atoi(d)
			files = append(files, rotatedFile{time: moment.AddDate(0, 0, -n)})
		}
		if got := expired(files, 7, moment); got != c.want {
			t.Errorf("ages %s: %d expired, want %d", c.days, got, c.want)
		}
		if got := expired(files, 0, moment); got != 0 {
			t.Errorf("%d expired without a limit", got)
		}
	}
	// A machine whose clock is never set deletes files all the same.
	unset := time.Unix(0, 0).AddDate(0, 0, 20)
	files := []rotatedFile{{time: unset.AddDate(0, 0, -9)}, {time: unset.AddDate(0, 0, -3)}}
	if got := expired(files, 7, unset); got != 1 {
		t.Errorf("%d expired by a clock that was never set", got)
	}
}

// Open refuses a name that the file system cannot store with a time (30).
func TestLongName(t *testing.T) {
	dir := t.TempDir()
	for n, ok := range map[int]bool{197: true, 198: false, 255: false, 300: false} {
		path := filepath.Join(dir, strings.Repeat("x", n-4)+".log")
		j, err := Open(path, Config{})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "too long") {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err == nil {
			if err := j.Rotate(); err != nil {
				t.Error(err)
			}
			j.Close()
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("%d files", len(files))
	}
}
