package scan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const testSettle = 300 * time.Millisecond

var epoch = time.Unix(1_000_000, 0)

// A disk stands in for the directory and the system's notifications.
type disk struct {
	t       testing.TB
	p       *policy
	now     time.Time
	files   map[string]file
	running map[string]Kind
	log     []string
}

func newDisk(t testing.TB, max int) *disk {
	return &disk{t: t, p: newPolicy(testSettle, max), now: epoch, files: make(map[string]file), running: make(map[string]Kind)}
}

// start reports what is there, as the first scan does.
func (d *disk) start() {
	for key, f := range d.files {
		d.p.look(key, f, d.now, false)
	}
	d.apply(d.p.changes(d.now.Add(latest)))
}

// advance lets time pass. The names that are to settle are looked at again.
func (d *disk) advance(by time.Duration) {
	end := d.now.Add(by)
	for {
		next := d.p.next()
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(d.now) {
			d.now = next
		}
		due := d.p.due(d.now)
		if len(due) == 0 {
			d.t.Fatalf("at %v nothing is due, but next is %v", d.now, next)
		}
		for _, key := range due {
			d.p.look(key, d.files[key], d.now, false)
		}
		d.apply(d.p.changes(d.now))
	}
	d.now = end
}

// set changes a file, and notifies of it if notified is set.
func (d *disk) set(key string, f file, notified bool) {
	d.files[key] = f
	if f.state == gone {
		delete(d.files, key)
	}
	if notified {
		d.p.look(key, f, d.now, true)
	}
}

// apply checks that a change fits what runs.
func (d *disk) apply(changes []Change) {
	for _, c := range changes {
		kind, ok := d.running[c.Entry.Name]
		bad := false
		switch c.Op {
		case Added:
			bad = ok || c.Entry.Kind == 0 || c.Reason != ""
			d.running[c.Entry.Name] = c.Entry.Kind
		case Changed:
			bad = kind != Program || c.Entry.Kind != Program || c.Reason != ""
		case Removed:
			bad = !ok || kind != c.Entry.Kind
			delete(d.running, c.Entry.Name)
		case PassedOver:
			bad = ok || c.Entry.Kind != 0 || c.Reason == ""
		default:
			bad = true
		}
		if bad {
			d.t.Errorf("change %v of %v (reason %q) while its kind was %v", c.Op, c.Entry, c.Reason, kind)
		}
		d.log = append(d.log, fmt.Sprintf("%d %v %s", d.now.Sub(epoch).Milliseconds(), c.Op, c.Entry.Name))
	}
	if len(d.running) > d.p.max || d.p.services != len(d.running) {
		d.t.Errorf("%d services run, the policy counts %d, and the maximum is %d", len(d.running), d.p.services, d.p.max)
	}
}

func aProgram(version int) file {
	return file{state: program, id: identity{inode: 1, mtime: int64(version)}}
}

func aService(inode int) file { return file{state: service, id: identity{inode: uint64(inode)}} }

func TestPolicy(t *testing.T) {
	plain := file{state: other, reason: "not executable"}
	noRunYet := file{state: noRun, id: identity{inode: 7}, reason: "directory without run"}
	broken := file{state: unknown, reason: "input/output error"}
	type step struct {
		after  int // ms
		name   string
		f      file
		silent bool // the system does not notify
	}
	for _, c := range []struct {
		name   string
		before map[string]file
		max    int
		steps  []step
		want   string
	}{
		{"nothing", nil, 0, nil, ""},
		{"first", map[string]file{"b": aProgram(1), "a": aService(2), "c": plain}, 0, nil, "0 added a, 0 added b, 0 passed over c"},
		{"two, one after the other", nil, 0, []step{{0, "a", aProgram(1), false}, {100, "b", aProgram(1), false}}, "300 added a, 400 added b"},
		{"another directory without run is the same news", nil, 0,
			[]step{{0, "a", noRunYet, false}, {500, "a", file{noRun, identity{inode: 8}, noRunYet.reason}, false}}, "300 passed over a"},
		{"new program", nil, 0, []step{{10, "a", aProgram(1), false}}, "310 added a"},
		{"written in parts", map[string]file{"a": aProgram(1)}, 0,
			[]step{{0, "a", aProgram(2), false}, {200, "a", aProgram(3), false}, {200, "a", aProgram(4), false}}, "0 added a, 700 changed a"},
		{"written in silence while it settles", map[string]file{"a": aProgram(1)}, 0,
			[]step{{0, "a", aProgram(2), false}, {200, "a", aProgram(3), true}}, "0 added a, 600 changed a"},
		{"touched without a difference", map[string]file{"a": aProgram(1)}, 0, []step{{0, "a", aProgram(1), false}}, "0 added a"},
		{"changed and changed back", map[string]file{"a": aProgram(1)}, 0,
			[]step{{0, "a", aProgram(2), false}, {100, "a", aProgram(1), false}}, "0 added a"},
		{"renamed away and created", map[string]file{"a": aProgram(1)}, 0,
			[]step{{0, "a", file{}, false}, {100, "a", plain, false}, {100, "a", aProgram(2), false}}, "0 added a, 500 changed a"},
		{"renamed away, and created too late", map[string]file{"a": aProgram(1)}, 0,
			[]step{{0, "a", file{}, false}, {301, "a", aProgram(2), false}}, "0 added a, 300 removed a, 601 added a"},
		{"removed", map[string]file{"a": aProgram(1)}, 0, []step{{5, "a", file{}, false}}, "0 added a, 305 removed a"},
		{"x bit taken and given", map[string]file{"a": aProgram(1)}, 0,
			[]step{{0, "a", plain, false}, {1000, "a", aProgram(1), false}}, "0 added a, 300 removed a, 1300 added a"},
		{"x bit taken says so once", map[string]file{"a": aProgram(1)}, 0,
			[]step{{0, "a", plain, false}, {1000, "a", plain, false}}, "0 added a, 300 removed a"},
		{"passed over once", nil, 0, []step{{0, "a", plain, false}, {500, "a", plain, false}, {500, "a", noRunYet, false}},
			"300 passed over a, 1300 passed over a"},
		{"passed over again after it was gone", nil, 0, []step{{0, "a", plain, false}, {500, "a", file{}, false}, {500, "a", plain, false}},
			"300 passed over a, 1300 passed over a"},
		{"a file for a moment", nil, 0, []step{{0, "a", aProgram(1), false}, {100, "a", file{}, false}}, ""},
		{"program becomes a directory", map[string]file{"a": aProgram(1)}, 0, []step{{0, "a", aService(2), false}},
			"0 added a, 300 removed a, 300 added a"},
		{"service becomes a program", map[string]file{"a": aService(1)}, 0, []step{{0, "a", aProgram(2), false}},
			"0 added a, 300 removed a, 300 added a"},
		{"another directory", map[string]file{"a": aService(1)}, 0, []step{{0, "a", aService(2), false}}, "0 added a, 300 removed a, 300 added a"},
		{"run of a service is saved", map[string]file{"a": aService(7)}, 0, []step{{0, "a", noRunYet, false}, {900, "a", aService(7), false}}, "0 added a"},
		{"another directory, without run", map[string]file{"a": aService(1)}, 0, []step{{0, "a", noRunYet, false}, {900, "a", aService(7), false}},
			"0 added a, 300 removed a, 1200 added a"},
		{"directory gets run", nil, 0, []step{{0, "a", noRunYet, false}, {900, "a", aService(7), false}}, "300 passed over a, 1200 added a"},
		{"disk fails", map[string]file{"a": aProgram(1), "b": aService(2)}, 0,
			[]step{{0, "a", broken, false}, {0, "b", broken, false}, {0, "c", broken, false}, {900, "a", aProgram(1), false}}, "0 added a, 0 added b, 300 passed over c"},
		{"too many", map[string]file{"a": aProgram(1), "b": aProgram(1), "c": aProgram(1), "d": aProgram(1)}, 2,
			[]step{{0, "d", plain, false}, {500, "a", file{}, false}, {500, "b", plain, false}, {500, "d", aProgram(2), false}},
			"0 added a, 0 added b, 0 passed over c, 0 passed over d, 300 passed over d, 800 removed a, 800 added c, 1300 removed b, 1800 added d"},
		{"room by the same settling", map[string]file{"a": aProgram(1), "b": aProgram(1)}, 1, []step{{0, "a", file{}, false}},
			"0 added a, 0 passed over b, 300 removed a, 300 added b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDisk(t, max(c.max, 100*(1-min(c.max, 1))))
			for key, f := range c.before {
				d.set(key, f, false)
			}
			d.start()
			for _, s := range c.steps {
				d.advance(time.Duration(s.after) * time.Millisecond)
				d.set(s.name, s.f, !s.silent)
			}
			d.advance(time.Minute)
			if got := strings.Join(d.log, ", "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if len(d.p.unsettled) > 0 {
				t.Errorf("%d names have not settled", len(d.p.unsettled))
			}
		})
	}
}

// A name that is written all the time counts as it is every 5 s.
func TestPolicyLatest(t *testing.T) {
	d := newDisk(t, 10)
	d.set("a", aProgram(0), false)
	d.start()
	for i := range 110 {
		d.set("a", aProgram(i+1), true)
		d.advance(100 * time.Millisecond)
	}
	d.advance(time.Minute)
	want := "0 added a, 5000 changed a, 10000 changed a, 11200 changed a"
	if got := strings.Join(d.log, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Names that are gone leave nothing behind.
func TestPolicyForgets(t *testing.T) {
	d := newDisk(t, 10)
	for i := range 100 {
		key := fmt.Sprint(i)
		d.set(key, []file{aProgram(1), aService(2), {state: other, reason: "not executable"}}[i%3], true)
		d.advance(time.Second)
		d.set(key, file{}, true)
		d.advance(time.Second)
	}
	if len(d.p.names) != 0 || len(d.p.unsettled) != 0 {
		t.Errorf("%d names and %d unsettled ones are left", len(d.p.names), len(d.p.unsettled))
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(uint64(1), uint8(3))
	f.Add(uint64(2), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, most uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newDisk(t, int(most%8)+1)
		some := []file{{}, {}, aProgram(1), aProgram(2), aService(1), aService(2),
			{state: other, reason: "not executable"}, {state: noRun, id: identity{inode: 1}, reason: "directory without run"},
			{state: unknown, reason: "input/output error"}}
		keys := strings.Split("abcdefgh", "")
		for range r.IntN(4) {
			d.set(keys[r.IntN(len(keys))], some[r.IntN(len(some))], false)
		}
		d.start()
		for range 60 {
			d.set(keys[r.IntN(len(keys))], some[r.IntN(len(some))], true)
			d.advance([]time.Duration{0, time.Millisecond, 250 * time.Millisecond, 2 * time.Second}[r.IntN(4)])
		}
		d.advance(time.Minute)
		// All files can be seen in the end.
		for _, key := range keys {
			if f := d.files[key]; f.state == unknown {
				d.set(key, file{}, true)
			}
		}
		d.advance(time.Minute)
		want := 0
		for key, f := range d.files {
			if f.isService() {
				want++
			}
			if kind := f.kind(); kind != d.running[key] && d.running[key] != 0 && f.state != noRun {
				t.Errorf("%s runs as %v, and is %v", key, d.running[key], kind)
			}
		}
		kept := 0 // directories whose run has gone
		for key := range d.running {
			if d.files[key].state == noRun {
				kept++
			}
		}
		if got := len(d.running) - kept; got != min(want, d.p.max-kept) {
			t.Errorf("%d services run beside %d without run, want %d of %v", got, kept, want, slices.Sorted(keysOf(d.files)))
		}
	})
}

func keysOf(m map[string]file) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}
