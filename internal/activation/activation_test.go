//go:build unix

package activation

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
		want  []named
		err   string
	}{
		{"", nil, ""},
		{"8080=3", []named{{3, "8080"}}, ""},
		{"127.0.0.1:28999=4;/x.sock=5", []named{{4, "127.0.0.1:28999"}, {5, "/x.sock"}}, ""},
		{"[::1]:80=3;u127.0.0.1:53=4", []named{{3, "[::1]:80"}, {4, "u127.0.0.1:53"}}, ""},
		{"/run/a=b.sock=5", []named{{5, "/run/a=b.sock"}}, ""},
		// The module panics on the next four.
		{"12:80=3", []named{{3, "12:80"}}, ""},
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
		got, err := parseStarter(tt.value)
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("parseStarter(%q) = %v, %v; want %v, %q", tt.value, got, err, tt.want, tt.err)
		}
	}
}

func TestParseListen(t *testing.T) {
	for _, tt := range []struct {
		pid, fds, names string
		want            []named
		err             string
	}{
		{"", "", "", nil, ""},
		{"8", "2", "", nil, ""}, // for another process
		{"7", "0", "", nil, ""},
		{"7", "2", "", []named{{3, ""}, {4, ""}}, ""},
		{"7", "2", "web:", []named{{3, "web"}, {4, ""}}, ""},
		{"7", "2", "web", nil, "names 1 descriptors"},
		{"7", "-1", "", nil, "not a number"},
		{"7", "two", "", nil, "not a number"},
	} {
		got, err := parseListen(tt.pid, tt.fds, tt.names, 7)
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("parseListen(%q, %q, %q) = %v, %v; want %v, %q", tt.pid, tt.fds, tt.names, got, err, tt.want, tt.err)
		}
	}
}

// For any value of the variables, parsing does not panic, not even in the module
// that crossCheck calls. Every error names its variable.
func FuzzGiven(f *testing.F) {
	f.Add("8080=3;/x=4", "1", "a:b")
	f.Add("12:80=3", "2", "")
	f.Add("0", "-1", ":")
	f.Fuzz(func(t *testing.T, starter, fds, names string) {
		got, err := parseStarter(starter)
		if err != nil && (got != nil || !strings.Contains(err.Error(), StarterEnv)) {
			t.Fatalf("parseStarter(%q) = %v, %v", starter, got, err)
		}
		for _, n := range got {
			if n.FD < firstFD || n.Name == "" {
				t.Fatalf("parseStarter(%q) = %v", starter, got)
			}
		}
		if !strings.Contains(starter, "\x00") {
			os.Setenv(StarterEnv, starter)
			defer os.Unsetenv(StarterEnv)
			if err := crossCheck(got); err != nil && !strings.Contains(err.Error(), "ambiguous") {
				t.Fatalf("crossCheck: %v", err)
			}
		}
		if listed, err := parseListen("7", fds, names, 7); err != nil && (listed != nil || !strings.Contains(err.Error(), "LISTEN_FD")) {
			t.Fatalf("parseListen(%q, %q) = %v, %v", fds, names, listed, err)
		}
	})
}

// The best match wins, and no match is nil.
func TestMatch(t *testing.T) {
	tcp := func(addr string) *Socket {
		a := netip.MustParseAddrPort(addr)
		network := "tcp4"
		if a.Addr().Is6() {
			network = "tcp6"
		}
		return &Socket{Network: network, Addr: a}
	}
	loop, loop6, all, all6, other := tcp("127.0.0.1:80"), tcp("[::1]:80"), tcp("0.0.0.0:80"), tcp("[::]:80"), tcp("127.0.0.1:81")
	udp := &Socket{Network: "udp4", Addr: netip.MustParseAddrPort("0.0.0.0:53")}
	path, gram, abstract := &Socket{Network: "unix", Path: "/run/s"}, &Socket{Network: "unixgram", Path: "/run/s"}, &Socket{Network: "unix", Path: "@s"}
	nothing := &Socket{}
	both := &Socket{Network: "tcp6", Addr: netip.MustParseAddrPort("[::]:80"), DualStack: true}
	zone := tcp("[fe80::1%eth0]:80")
	for _, tt := range []struct {
		network, address string
		among            []*Socket
		want             *Socket
	}{
		{"tcp", ":80", []*Socket{loop, all}, all},
		{"tcp", ":80", []*Socket{other, loop}, loop}, // the starter decides on the host
		{"tcp", ":0", []*Socket{nothing, udp, other}, other},
		{"tcp", "127.0.0.1:0", []*Socket{all, other}, other},
		{"tcp", "127.0.0.1:80", []*Socket{all, loop6, loop}, loop},
		{"tcp", "127.0.0.1:80", []*Socket{all}, nil}, // it would serve more clients than requested
		{"tcp", "0.0.0.0:80", []*Socket{loop, all}, all},
		{"tcp", "0.0.0.0:80", []*Socket{all6}, nil}, // it accepts only IPv6
		{"tcp", "0.0.0.0:80", []*Socket{both}, both},
		{"tcp", "[::]:80", []*Socket{all, both}, both},
		{"tcp", "", []*Socket{loop}, loop},
		{"tcp", "[fe80::1%eth0]:80", []*Socket{zone}, zone},
		{"tcp", "[fe80::1%eth1]:80", []*Socket{zone}, nil},
		{"tcp", "localhost:80", []*Socket{loop6}, loop6},
		{"tcp4", ":80", []*Socket{all6, all}, all},
		{"tcp4", ":80", []*Socket{both}, both}, // it accepts IPv4 too
		{"tcp4", "127.0.0.1:80", []*Socket{both}, nil},
		{"tcp6", ":80", []*Socket{all, all6}, all6},
		{"tcp", ":82", []*Socket{loop, all, other}, nil},
		{"udp", ":53", []*Socket{loop, udp}, udp},
		{"udp", ":80", []*Socket{all, udp}, nil},
		{"unix", "/run/s", []*Socket{gram, path}, path},
		{"unixgram", "/run/s", []*Socket{path, gram}, gram},
		{"unix", "/run/../run/s", []*Socket{path}, path},
		{"unix", "@s", []*Socket{path, abstract}, abstract},
		{"unix", "/run/t", []*Socket{path}, nil},
	} {
		if got, err := Match(tt.among, tt.network, tt.address); got != tt.want || err != nil {
			t.Errorf("%s %s among %v: %v, %v; want %v", tt.network, tt.address, tt.among, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		network, address string
		among            []*Socket
		want             *Socket
	}{
		{"tcp", ":80", []*Socket{loop, all}, all},
		{"tcp", ":80", []*Socket{loop}, nil}, // fewer clients than requested
		{"tcp", "127.0.0.1:80", []*Socket{all}, nil},
		{"tcp", ":0", []*Socket{all}, nil},
		{"tcp", "127.0.0.1:0", []*Socket{loop}, nil},
		{"tcp4", "0.0.0.0:80", []*Socket{both}, both},
		{"tcp", "localhost:80", []*Socket{loop}, loop},
		{"udp4", ":53", []*Socket{udp}, udp},
		{"unix", "/run/../run/s", []*Socket{path}, path},
	} {
		if got, err := MatchBound(tt.among, tt.network, tt.address); got != tt.want || err != nil {
			t.Errorf("%s %s among a predecessor's %v: %v, %v; want %v", tt.network, tt.address, tt.among, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		network string
		among   []*Socket
		want    *Socket
	}{
		{"tcp", []*Socket{udp, nothing, other}, other},
		{"tcp", []*Socket{all, other}, nil},
		{"tcp", []*Socket{udp, path}, nil},
		{"tcp4", []*Socket{loop6, all}, all},
		{"tcp4", []*Socket{both}, both},
		{"tcp6", []*Socket{all}, nil},
		{"unix", []*Socket{gram, path}, path},
	} {
		if got := Sole(tt.among, tt.network); got != tt.want {
			t.Errorf("sole of %s among %v: %v, want %v", tt.network, tt.among, got, tt.want)
		}
	}
	for _, address := range []string{"nonsense", "localhost:nosuch"} {
		if got, err := Match([]*Socket{loop}, "tcp", address); got != nil || err == nil {
			t.Errorf("tcp %s: %v, %v; want an error", address, got, err)
		}
	}
}
