package marker

import (
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var full = Marker{
	Manager: 4711, Name: "web; a=b,%", Slot: 3, Generation: 7, Ordinal: 42, Stop: 15, Ignore: "1+2+12", Orphan: 1500 * time.Millisecond, StopTime: -time.Second,
	Control: 3, Passed: 4, Cell: 10, Requests: 5000, Pause: 3, Level: -4, Exe: 9, Resources: "nice:5|id:1:2:", Path: "/srv/a;b/current",
	Sockets: []Socket{{5, "tcp", "[::1]:8080", Shared, true, 0}, {6, "unix", "/run/a b;c=d.sock", FellBack, true, 77}, {7, "tcp", "", 0, false, 0}, {8, "tcp", "", 12, false, 0}},
	Files:   []File{{11, "service web;1,2"}, {12, ""}},
}

func TestRoundTrip(t *testing.T) {
	for _, m := range []Marker{full, {Manager: 1, Generation: 1, Ordinal: 1, Stop: 1, Control: 3}} {
		got, err := Parse(m.String())
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", m, got, err, m)
		}
	}
}

func TestSignalList(t *testing.T) {
	for _, sigs := range [][]syscall.Signal{nil, {1}, {1, 2, 34, 64}} {
		m, err := Parse(Marker{Manager: 1, Generation: 1, Ordinal: 1, Stop: 1, Control: 3, Ignore: SignalList(sigs)}.String())
		var got []syscall.Signal
		for _, sig := range m.Ignored() {
			got = append(got, sig.(syscall.Signal))
		}
		if err != nil || !slices.Equal(got, sigs) {
			t.Errorf("%v, %v; want %v", got, err, sigs)
		}
	}
}

func TestAlterationsAreDetected(t *testing.T) {
	value := full.String()
	for i := range len(value) {
		for _, altered := range []string{
			value[:i], value[:i] + value[i+1:], value[:i] + "1" + value[i:], value[:i] + string(value[i]^1) + value[i+1:],
		} {
			if altered == value {
				continue
			}
			if got, err := Parse(altered); err == nil {
				t.Errorf("Parse(%q) = %+v, want an error", altered, got)
			}
		}
	}
}

// sum returns a value whose checksum is right, as a forger would write it.
func sum(body string) string {
	return "v" + version + ";" + checksum(body) + ";" + body
}

// The values are from the authors of the algorithm.
func TestChecksum(t *testing.T) {
	for text, want := range map[string]string{"": "811c9dc5", "a": "e40c292c", "foobar": "bf9cf968"} {
		if got := checksum(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "pid=1;name=;slot=0;gen=1;ord=1;stop=15;ignore=;orphan=0;stoptime=0;group=0;ctl=3;pass=0;cell=0;requests=0;pause=0;level=0;exe=0;res=;path="
	if _, err := Parse(sum(good)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for _, tt := range []struct{ name, value, want string }{
		{"empty", "", "not a value"},
		{"a flag", "1", "not a value"},
		{"another version", "v1;00000000;x", "manager and worker must be the same program"},
		{"control is a standard stream", sum(strings.Replace(good, "ctl=3", "ctl=2", 1)), "out of range"},
		{"passed is a standard stream", sum(strings.Replace(good, "pass=0", "pass=1", 1)), "standard stream"},
		{"pid 0", sum(strings.Replace(good, "pid=1", "pid=0", 1)), "out of range"},
		{"a sign", sum(strings.Replace(good, "slot=0", "slot=+0", 1)), "not a number"},
		{"fields swapped", sum("name=;pid=1;slot=0;gen=1;ord=1;stop=15;ignore=;orphan=0;stoptime=0;group=0;ctl=3;pass=0;cell=0;requests=0;pause=0;level=0;exe=0"), "pid is missing"},
		{"cut", sum("pid=1;name=;slot=0"), "gen is missing"},
		{"an unknown field", sum(good + ";x=1"), "not a socket"},
		{"the binary is a standard stream", sum(strings.Replace(good, "exe=0", "exe=1", 1)), "standard stream"},
		{"the binary is the control socket", sum(strings.Replace(good, "exe=0", "exe=3", 1)), "named twice"},
		{"no binary", sum(strings.Replace(good, ";exe=0", "", 1)), "exe is missing"},
		{"a descriptor twice", sum(good + ";sock=3,tcp,x,-1,0,0"), "named twice"},
		{"a huge descriptor", sum(good + ";sock=99999999999,tcp,x,-1,0,0"), "out of range"},
		{"a socket without all its parts", sum(good + ";sock=4,tcp,x,-1,0"), "not a socket"},
		{"a socket with an empty slot", sum(good + ";sock=4,tcp,x,,0,0"), "slot"},
		{"a socket with a slot out of range", sum(good + ";sock=4,tcp,x,-4,0,0"), "out of range"},
		{"a slot out of range", sum(strings.Replace(good, "slot=0", "slot=-2", 1)), "out of range"},
		{"a file without a name", sum(good + ";file=4"), "not a file"},
		{"a file that is a standard stream", sum(good + ";file=2,x"), "out of range"},
		{"a file twice", sum(good + ";file=4,x;file=4,y"), "named twice"},
		{"a socket after a file", sum(good + ";file=4,x;sock=5,tcp,x,-1,0,0"), "not a file"},
		{"escaped without need", sum(strings.Replace(good, "name=", "name=%61", 1)), "not escaped as a manager does"},
	} {
		if _, err := Parse(tt.value); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Parse(%q): %v, want %q", tt.name, tt.value, err, tt.want)
		}
	}
}

// For a successor, the error names its variable and suggests a restart.
func TestParseSuccessor(t *testing.T) {
	if m, err := ParseSuccessor(full.String()); err != nil || !reflect.DeepEqual(m, full) {
		t.Errorf("%+v, %v", m, err)
	}
	for value, want := range map[string]string{"1": "not a value", "v1;00000000;x": "cannot be upgraded; stop it"} {
		if _, err := ParseSuccessor(value); err == nil || !strings.HasPrefix(err.Error(), SuccessorEnv+"=") || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSuccessor(%q): %v, want %q", value, err, want)
		}
	}
}

// For any value, Parse does not panic, and accepts only values of String.
func FuzzParse(f *testing.F) {
	f.Add(full.String())
	f.Add("v6;00000000;pid=1")
	f.Add(full.String()[len("v6;00000000;"):]) // the text after the checksum
	f.Add(sum("pid=1;name=;slot=0;gen=1;ord=1;stop=15;ignore=;orphan=0;stoptime=0;group=0;ctl=3;pass=0;cell=0;requests=0;pause=0;level=0;exe=0;res=;path=;sock=4,tcp,:80,-1,1,0;file=5,lock"))
	f.Fuzz(func(t *testing.T, value string) {
		// The second value has the right checksum, which a fuzzer cannot guess.
		for _, v := range []string{value, sum(value)} {
			if m, err := Parse(v); err == nil && m.String() != v {
				t.Fatalf("Parse(%q) = %+v, whose String is %q", v, m, m)
			}
		}
	})
}

// Parse refuses a marker in which two fields claim one descriptor, for every pair
// of fields.
func TestParseRefusesDescriptorsClaimedTwice(t *testing.T) {
	claims := []func(m *Marker) *int{
		func(m *Marker) *int { return &m.Control }, func(m *Marker) *int { return &m.Passed },
		func(m *Marker) *int { return &m.Cell }, func(m *Marker) *int { return &m.Exe },
		func(m *Marker) *int { return &m.Sockets[0].FD }, func(m *Marker) *int { return &m.Sockets[1].FD },
		func(m *Marker) *int { return &m.Files[0].FD }, func(m *Marker) *int { return &m.Files[1].FD },
	}
	for i, one := range claims {
		for j, other := range claims[:i] {
			m := full
			m.Sockets, m.Files = slices.Clone(full.Sockets), slices.Clone(full.Files)
			*one(&m) = *other(&m)
			if _, err := Parse(m.String()); err == nil || !strings.Contains(err.Error(), "is named twice") {
				t.Errorf("claims %d and %d: %v", i, j, err)
			}
		}
	}
}
