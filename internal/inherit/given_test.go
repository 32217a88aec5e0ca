//go:build unix

package inherit

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestParseStarter(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  []Named
		err   string
	}{
		{"", nil, ""},
		{"8080=3", []Named{{3, "8080"}}, ""},
		{"127.0.0.1:28999=4;/x.sock=5", []Named{{4, "127.0.0.1:28999"}, {5, "/x.sock"}}, ""},
		{"[::1]:80=3;u127.0.0.1:53=4", []Named{{3, "[::1]:80"}, {4, "u127.0.0.1:53"}}, ""},
		{"/run/a=b.sock=5", []Named{{5, "/run/a=b.sock"}}, ""},
		// The module panics on these four.
		{"12:80=3", []Named{{3, "12:80"}}, ""},
		{"8080", nil, "not of the form"},
		{"8080=3;", nil, "not of the form"},
		{"0", nil, "not of the form"},
		{"=3", nil, "not of the form"},
		{"8080=2", nil, "they start at 3"},
		{"8080=x", nil, "is not a descriptor"},
		{"8080=+3", nil, "is not a descriptor"},
		{"8080=99999999999999999999", nil, "is not a descriptor"},
		{"80=3;81=3", nil, "named twice"},
	} {
		got, err := ParseStarter(tt.value)
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("ParseStarter(%q) = %v, %v; want %v, %q", tt.value, got, err, tt.want, tt.err)
		}
	}
}

func TestParseListen(t *testing.T) {
	for _, tt := range []struct {
		pid, fds, names string
		want            []Named
		err             string
	}{
		{"", "", "", nil, ""},
		{"8", "2", "", nil, ""}, // of another process
		{"7", "0", "", nil, ""},
		{"7", "2", "", []Named{{3, ""}, {4, ""}}, ""},
		{"7", "2", "web:", []Named{{3, "web"}, {4, ""}}, ""},
		{"7", "2", "web", nil, "names 1 descriptors"},
		{"7", "-1", "", nil, "not a number"},
		{"7", "two", "", nil, "not a number"},
	} {
		got, err := ParseListen(tt.pid, tt.fds, tt.names, 7)
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("ParseListen(%q, %q, %q) = %v, %v; want %v, %q", tt.pid, tt.fds, tt.names, got, err, tt.want, tt.err)
		}
	}
}

// Whatever the variables hold, reading them ends without a panic, also in the module that is asked beside; every refusal
// says of which variable.
func FuzzGiven(f *testing.F) {
	f.Add("8080=3;/x=4", "1", "a:b")
	f.Add("12:80=3", "2", "")
	f.Add("0", "-1", ":")
	f.Fuzz(func(t *testing.T, starter, fds, names string) {
		got, err := ParseStarter(starter)
		if err != nil && (got != nil || !strings.Contains(err.Error(), StarterEnv)) {
			t.Fatalf("ParseStarter(%q) = %v, %v", starter, got, err)
		}
		for _, n := range got {
			if n.FD < firstFD || n.Name == "" {
				t.Fatalf("ParseStarter(%q) = %v", starter, got)
			}
		}
		if !strings.Contains(starter, "\x00") {
			os.Setenv(StarterEnv, starter)
			defer os.Unsetenv(StarterEnv)
			if err := agree(got); err != nil && !strings.Contains(err.Error(), "two ways") {
				t.Fatalf("agree: %v", err)
			}
		}
		if listed, err := ParseListen("7", fds, names, 7); err != nil && (listed != nil || !strings.Contains(err.Error(), "LISTEN_FD")) {
			t.Fatalf("ParseListen(%q, %q) = %v, %v", fds, names, listed, err)
		}
	})
}

func TestFit(t *testing.T) {
	tcp := func(addr string) *Given {
		a := netip.MustParseAddrPort(addr)
		network := "tcp4"
		if a.Addr().Is6() {
			network = "tcp6"
		}
		return &Given{Network: network, Addr: a}
	}
	loop, loop6, all, all6, other := tcp("127.0.0.1:80"), tcp("[::1]:80"), tcp("0.0.0.0:80"), tcp("[::]:80"), tcp("127.0.0.1:81")
	udp := &Given{Network: "udp4", Addr: netip.MustParseAddrPort("0.0.0.0:53")}
	path, gram, abstract := &Given{Network: "unix", Path: "/run/s"}, &Given{Network: "unixgram", Path: "/run/s"}, &Given{Network: "unix", Path: "@s"}
	nothing := &Given{}
	both := &Given{Network: "tcp6", Addr: netip.MustParseAddrPort("[::]:80"), Both: true}
	zone := tcp("[fe80::1%eth0]:80")
	for _, tt := range []struct {
		network, address string
		among            []*Given
		want             *Given
	}{
		{"tcp", ":80", []*Given{loop, all}, all},
		{"tcp", ":80", []*Given{other, loop}, loop}, // who started the program knows on which host to serve
		{"tcp", ":0", []*Given{nothing, udp, other}, other},
		{"tcp", "127.0.0.1:0", []*Given{all, other}, other},
		{"tcp", "127.0.0.1:80", []*Given{all, loop6, loop}, loop},
		{"tcp", "127.0.0.1:80", []*Given{all}, nil}, // it would serve more people than was wished for
		{"tcp", "0.0.0.0:80", []*Given{loop, all}, all},
		{"tcp", "0.0.0.0:80", []*Given{all6}, nil}, // it takes IPv6 alone
		{"tcp", "0.0.0.0:80", []*Given{both}, both},
		{"tcp", "[::]:80", []*Given{all, both}, both},
		{"tcp", "", []*Given{loop}, loop},
		{"tcp", "[fe80::1%eth0]:80", []*Given{zone}, zone},
		{"tcp", "[fe80::1%eth1]:80", []*Given{zone}, nil},
		{"tcp", "localhost:80", []*Given{loop6}, loop6},
		{"tcp4", ":80", []*Given{all6, all}, all},
		{"tcp6", ":80", []*Given{all, all6}, all6},
		{"tcp", ":82", []*Given{loop, all, other}, nil},
		{"udp", ":53", []*Given{loop, udp}, udp},
		{"udp", ":80", []*Given{all, udp}, nil},
		{"unix", "/run/s", []*Given{gram, path}, path},
		{"unixgram", "/run/s", []*Given{path, gram}, gram},
		{"unix", "/run/../run/s", []*Given{path}, path},
		{"unix", "@s", []*Given{path, abstract}, abstract},
		{"unix", "/run/t", []*Given{path}, nil},
	} {
		if got, err := Fit(tt.among, tt.network, tt.address); got != tt.want || err != nil {
			t.Errorf("%s %s among %v: %v, %v; want %v", tt.network, tt.address, tt.among, got, err, tt.want)
		}
	}
	for _, address := range []string{"nonsense", "localhost:nosuch"} {
		if got, err := Fit([]*Given{loop}, "tcp", address); got != nil || err == nil {
			t.Errorf("tcp %s: %v, %v; want an error", address, got, err)
		}
	}
}
