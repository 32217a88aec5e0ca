package resources

import (
	"reflect"
	"strings"
	"testing"
)

var full = plan{
	limits: []Rlimit{{"core", 0, 0}, {"nofile", 1024, 4096}, {"nproc", 7, Unlimited}}, nice: -5, umask: new(0o27), cpus: []int{0, 1, 2, 5, 1023},
	chroot: "/srv/a|b:c ~d\xff", identity: &identity{1000, 1001, []uint32{4, 24, maxID}}, noNewPrivs: true,
}

func TestPlanRoundTrip(t *testing.T) {
	const text = "lim:core:0:0|lim:nofile:1024:4096|lim:nproc:7:18446744073709551615|nice:-5|mask:027|cpu:0-2.5.1023|id:1000:1001:4.24.4294967294|nnp:|root:/srv/a|b:c ~d\xff"
	if got := full.String(); got != text {
		t.Errorf("String() = %q, want %q", got, text)
	}
	for _, p := range []plan{full, {}, {nice: 19}, {umask: new(0)}, {identity: &identity{}}, {cpus: []int{3}}, {chroot: "/"}, {chroot: "/|root:/|nnp:"}} {
		if got, err := parsePlan(p.String()); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("parsePlan(%q) = %+v, %v", p, got, err)
		}
	}
}

func TestMalformedPlans(t *testing.T) {
	for _, text := range []string{
		"|", "x", "nnp", "nnp:1", "nnp:|nnp:", "nice:0", "nice:20", "nice:-21", "nice:+1", "nice:01", "nice:1|nice:2", "nice:1|lim:core:0:0",
		"mask:", "mask:27", "mask:0027", "mask:1000", "mask:028", "mask:-01", "mask:022|mask:022", "mask:022|nice:1",
		"lim:core:0", "lim:rss:1:2", "lim:core:2:1", "lim:core:0:0|lim:core:1:1", "lim:nofile:1:1|lim:core:1:1", "lim:core:-1:1", "lim:core:0:18446744073709551616",
		"cpu:", "cpu:1024", "cpu:1.0", "cpu:0-0", "cpu:0.1", "cpu:1-0", "cpu:-1", "cpu:0-", "cpu:0-99999999999", "cpu:1.1",
		"root:", "root:x", "root:/\x00", "root:x|root:/", "|root:/", "nnp:||root:/",
		"id:", "id:1:2", "id:1:2:3:4", "id:-1:0:", "id:0:4294967295:", "id:4294967295:0:", "id:99999999999:0:", "id:00:0:", "id:root:0:", "id:1:1:1", "id:1:2:4.3", "id:1:2:3.3", "id:1:2:3.",
	} {
		if p, err := parsePlan(text); err == nil {
			t.Errorf("parsePlan(%q) = %+v, want an error", text, p)
		}
		if err := Apply(text); err == nil {
			t.Errorf("Apply(%q) has no error", text)
		}
	}
	many := plan{identity: &identity{1, 2, make([]uint32, maxGroups+1)}}
	for i := range many.identity.groups {
		many.identity.groups[i] = uint32(3 + i)
	}
	if _, err := parsePlan(many.String()); err == nil {
		t.Errorf("parsePlan accepts %d groups", maxGroups+1)
	}
	if err := Apply(strings.Repeat("x", 1<<20)); err == nil || len(err.Error()) > 200 {
		t.Errorf("%.300v", err)
	}
	if err := Apply(""); err != nil {
		t.Errorf("empty plan: %v", err)
	}
}

// FuzzPlan checks that parsePlan does not panic, and accepts only the output of
// String.
func FuzzPlan(f *testing.F) {
	f.Add(full.String())
	f.Add("id:0:0:|nnp:")
	f.Add("nice:1|root:/ |root:/")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePlan(text)
		if err == nil && p.String() != text {
			t.Fatalf("parsePlan(%q).String() = %q", text, p)
		}
	})
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		cpus      []int
		per, slot int
		want      string
	}{
		{nil, 0, 0, ""}, {[]int{0, 1, 2, 3}, 0, 7, "0-3"}, {[]int{0, 1, 2, 3}, 2, -1, "0-3"}, {[]int{0, 1, 2, 3}, 4, 1, "0-3"},
		{[]int{0, 1, 2, 3}, 1, 0, "0"}, {[]int{0, 1, 2, 3}, 1, 5, "1"}, {[]int{0, 1, 2, 3}, 2, 1, "2-3"}, {[]int{0, 1, 2, 3}, 2, 2, "0-1"},
		{[]int{0, 1, 2}, 2, 1, "0.2"}, {[]int{0, 1, 2}, 2, 2, "1-2"}, {[]int{8, 0, 4}, 1, 0, "8"}, {[]int{8, 0, 4}, 2, 0, "0.8"},
		{[]int{0, 1, 2}, 2, 1<<31 - 1, "0.2"}, // (2^31 - 1) mod 3 is 1
	} {
		if got := ranges(spread(tt.cpus, tt.per, tt.slot)); got != tt.want {
			t.Errorf("%d of %v for slot %d: %s, want %s", tt.per, tt.cpus, tt.slot, got, tt.want)
		}
	}
	// With one slot for each CPU, all CPUs are used equally often.
	counts := make([]int, 7)
	for slot := range 7 {
		for _, cpu := range spread([]int{0, 1, 2, 3, 4, 5, 6}, 3, slot) {
			counts[cpu]++
		}
	}
	if want := []int{3, 3, 3, 3, 3, 3, 3}; !reflect.DeepEqual(counts, want) {
		t.Errorf("CPUs are used %v times, want %v", counts, want)
	}
}

// TestCheckStandby checks the size of the message that gives a standby its
// CPUs.
func TestCheckStandby(t *testing.T) {
	s := &Settings{per: 2}
	for cpu := 0; cpu < 1000; cpu += 3 {
		s.cpus = append(s.cpus, cpu)
	}
	if err := s.CheckStandby(len("cpu:993.999")); err != nil {
		t.Errorf("a message of the maximum size: %v", err)
	}
	if err := s.CheckStandby(len("cpu:993.999") - 1); err == nil || !strings.HasPrefix(err.Error(), "CPUsPerWorker: the list of the CPUs of slot ") {
		t.Errorf("a message that is one byte too long: %v", err)
	}
	if text := (&Settings{cpus: s.cpus}).SlotPlan(1); text != "" {
		t.Errorf("SlotPlan without CPUsPerWorker: %q", text)
	}
	s.plan.chroot = "/srv"
	if err := s.CheckStandby(1 << 20); err == nil || !strings.Contains(err.Error(), "changed its root") {
		t.Errorf("in a chroot: %v", err)
	}
}

// TestPlanNeedsNoEscape checks that a marker holds a plan unescaped, except for a
// path.
func TestPlanNeedsNoEscape(t *testing.T) {
	p := full
	p.chroot = "/srv/jail"
	if text := p.String(); strings.ContainsAny(text, " ;,=%") {
		t.Errorf("%q", text)
	}
}
