package monitor

import (
	"os"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// A service has its user, limits, nice value, umask, session and namespace; finish
// runs as the user of the Monitor.
func TestResources(t *testing.T) {
	preforktest.NeedRoot(t)
	r := newRig(t, Config{})
	r.service("web", `run: echo $(id -u):$(id -G) $(ulimit -n) $(umask) $(nice); exec sleep 1000`, "finish: echo finish $(id -u) $(umask)",
		"user: nobody", "limits: nofile=123\ncore=0", "umask: 027", "nice: 3")
	r.service("session", `run: echo session $$ $(cut -d" " -f6 /proc/self/stat); exec sleep 1000`, "flag-setsid: ")
	r.service("first", `run: echo first $$; exec sleep 1000`, "flag-newpidns: ")
	os.Chmod(r.dir, 0o755)
	r.start()
	for range 3 {
		line := r.line()
		switch words := strings.Fields(line); words[0] {
		case "session":
			if words[1] != words[2] {
				t.Errorf("%q: it leads no session", line)
			}
		case "first":
			if words[1] != "1" {
				t.Errorf("%q: it is not the first process", line)
			}
		default:
			if line != "65534:65534 123 0027 3" {
				t.Errorf("%q", line)
			}
		}
	}
	r.do("web", "d")
	r.want("finish 0 .*")
	r.do("first", "k")
	r.want("first 1")
	r.do("first", "d") // TERM has no effect on it
	r.do("first", "k")
}
