package safedir

import "testing"

func TestCountMapped(t *testing.T) {
	for table, want := range map[string]uint64{
		"         0          0 4294967295\n": 1<<32 - 1,
		"         0       1000          1\n": 1,
		"0 1000 1\n1 100000 65536\n":         65537,
		"0 0 1000\n1000 1000 4294966295\n":   1<<32 - 1,
		"":                                   0,
	} {
		if got := countMapped(table); got != want {
			t.Errorf("%q: %d, want %d", table, got, want)
		}
	}
	if Ambiguous(0) || Ambiguous(1000) || AmbiguousGroup(1000) {
		t.Error("an ordinary user is ambiguous")
	}
}
