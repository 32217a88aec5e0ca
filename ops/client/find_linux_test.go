package client

import (
	"slices"
	"testing"
)

func TestParseTable(t *testing.T) {
	table := `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 20001 /run/prefork/web.prefork.sock
0000000000000000: 00000003 00000000 00000000 0001 03 20002 /run/prefork/web.prefork.sock
0000000000000000: 00000002 00000000 00010000 0001 01 20003 @prefork/0/queue
0000000000000000: 00000002 00000000 00010000 0001 01 20004 /srv/a b.prefork.sock
0000000000000000: 00000002 00000000 00010000 0001 01    5 relative.prefork.sock
0000000000000000: 00000002 00000000 00010000 0001 01 20006
0000000000000000: 00000002 00000000 00010000 0001 01 20007 /run/systemd/private
garbage
`
	want := []string{"/run/prefork/web.prefork.sock", "@prefork/0/queue", "/srv/a b.prefork.sock"}
	if got := parseTable(table); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for address, name := range map[string]string{"/run/prefork/web.prefork.sock": "web", "@prefork/0/queue": "queue", "/x/other": "other"} {
		if got := nameOf(address); got != name {
			t.Errorf("%s: name %q, want %q", address, got, name)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add("0000: 00000002 00000000 00010000 0001 01 20001 /a.prefork.sock\n")
	f.Fuzz(func(t *testing.T, table string) {
		for _, address := range parseTable(table) {
			if !isControl(address) {
				t.Errorf("%q", address)
			}
		}
	})
}
