//go:build unix

package launch

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/internal/activation"
)

// none stands for a descriptor that the Command does not get.
const none = int(^uint(0) >> 1)

// The sockets of a Command get the lowest numbers that nothing else must have.
func TestNumbersOfACommand(t *testing.T) {
	for _, test := range []struct {
		name      string
		files     int
		ready     int
		sockets   int
		listenFDs bool
		want      []int  // from 3 up: 100 a file, 200 a socket, 300 the control socket
		ports     string // in SERVER_STARTER_PORT
		err       string
	}{
		{name: "nothing"},
		{name: "sockets", files: 1, sockets: 2, want: []int{100, 200, 200}, ports: "a=4;a=5"},
		{name: "ready at 3", ready: 3, sockets: 2, want: []int{300, 200, 200}, ports: "a=4;a=5"},
		{name: "ready among them", ready: 4, sockets: 2, want: []int{200, 300, 200}, ports: "a=3;a=5"},
		{name: "ready behind them", ready: 7, sockets: 2, want: []int{200, 200, none, none, 300}, ports: "a=3;a=4"},
		{name: "ready alone", ready: 5, want: []int{none, none, 300}},
		{name: "ready at a file", files: 2, ready: 4, err: "Spawn.Files, which have 3 to 4"},
		{name: "LISTEN_FDS", ready: 6, files: 1, sockets: 2, listenFDs: true, want: []int{100, 200, 200, 300}, ports: "a=4;a=5"},
		{name: "among LISTEN_FDS", ready: 5, files: 1, sockets: 2, listenFDs: true, err: "LISTEN_FDS, which have 3 to 5"},
		{name: "too high", ready: 1 << 30, err: "not below RLIMIT_NOFILE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file, socket := open(t), open(t)
			plan := Plan{
				Args: []string{"/bin/sh"}, Files: slices.Repeat([]*os.File{file}, test.files), ReadyFD: test.ready, ListenFDs: test.listenFDs,
				Ports: slices.Repeat([]string{"a"}, test.sockets), PortFDs: slices.Repeat([]int{raw(t, socket)}, test.sockets),
			}
			spec, release, err := Command(plan)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			var got []int
			for n, descriptor := range spec.Files[3:] {
				switch {
				case spec.Control == n+3:
					got = append(got, 300)
				case descriptor == closed:
					got = append(got, none)
				case descriptor == uintptr(raw(t, file)):
					got = append(got, 100)
				case descriptor == uintptr(raw(t, socket)):
					got = append(got, 200)
				}
			}
			if !slices.Equal(got, test.want) || spec.Control != test.ready {
				t.Errorf("%v, control %d; want %v", got, spec.Control, test.want)
			}
			ports, _ := variable(spec, activation.StarterEnv)
			if ports != test.ports {
				t.Errorf("%s=%s, want %s", activation.StarterEnv, ports, test.ports)
			}
			if n, _ := variable(spec, activation.ListenFDsEnv); test.listenFDs && n != "3" {
				t.Errorf("%s=%s", activation.ListenFDsEnv, n)
			}
		})
	}
}
