package control

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
)

// exchange is a request that is being answered.
type exchange struct {
	*server
	*request
	conn   *net.UnixConn
	w      timedWriter
	peer   peer
	access access

	pools   []*pool // when the request came
	changes int     // of the pools until then
	from    uint64  // number of the first entry of the ring after that
}

// A route handles the requests for a path. Its function returns a *problem that the
// client gets, or any other error if the client is gone.
type route struct {
	method string
	help   string
	handle func(*exchange) error
}

var routes map[string]route

func init() {
	routes = map[string]route{
		"/":                    {"GET", "", (*exchange).help},
		"/v1/status":           {"GET", "[?usage=1][&pool=NAME] the status; with Accept: text/plain as a table", (*exchange).status},
		"/v1/events":           {"GET", "[?since=SEQ][&follow=0] the state, or the last events, and those that follow", (*exchange).events},
		"/v1/wait":             {"GET", "?for=ready|settled|paused|running|reloaded>N[&timeout=30s] waits until it holds", (*exchange).wait},
		"/v1/tail":             {"GET", "[?pool=NAME][&slot=N][&lines=N] the last lines of the workers", (*exchange).tail},
		"/healthz":             {"GET", "200 when every loop has turned within 2 s", (*exchange).healthz},
		"/readyz":              {"GET", "200 when each pool has a ready worker, except services that are meant to be down", (*exchange).readyz},
		"/v1/reload":           {"POST", "[?how=rolling|plain|interval=1s] replaces the workers", (*exchange).reload},
		"/v1/restart":          {"POST", "replaces the workers, all at once", (*exchange).restart},
		"/v1/upgrade":          {"POST", "replaces the manager by one of the program on disk", (*exchange).upgrade},
		"/v1/scale":            {"POST", "?workers=N|+N|-N changes the number of workers", (*exchange).scale},
		"/v1/pause":            {"POST", "asks the workers to pause", (*exchange).pause},
		"/v1/resume":           {"POST", "ends the pause", (*exchange).resume},
		"/v1/signal":           {"POST", "?signal=HUP[&to=manager|workers] delivers a signal", (*exchange).signal},
		"/v1/stop":             {"POST", "[?stay=1] ends the program; stay sets the stopped flag of its service", (*exchange).stop},
		"/v1/workers":          {"POST", "/ID/replace|stop|kill|signal?signal= acts on one worker", (*exchange).worker},
		"/v1/services":         {"GET", "[?name=NAME][&until=up] the services of prefork watch; with Accept: text/plain as lines", (*exchange).services},
		"/v1/services/command": {"POST", "?name=NAME&bytes=tcu[&until=restarted][&keep=up|down] commands services", (*exchange).commandServices},
		"/v1/loglevel":         {"PUT", "?level=debug sets the level of the log", (*exchange).loglevel},
	}
}

func (s *server) dispatch(x *exchange) error {
	x.look()
	path := x.path
	if strings.HasPrefix(path, "/v1/workers/") {
		path = "/v1/workers"
	}
	r, ok := routes[path]
	if !ok {
		return problemf(404, "there is no %.60q here: GET / lists the paths", x.path)
	}
	if x.method != r.method {
		p := problemf(405, "%s is for %s", path, r.method)
		p.allow = r.method
		return p
	}
	if r.method != "GET" && x.access != accessAll {
		return s.perm.refusal(x.peer, x.access)
	}
	if p := s.handedOver(); p != nil {
		return p
	}
	return r.handle(x)
}

// handedOver returns the problem of a request that this manager has accepted and
// its successor must answer.
func (s *server) handedOver() *problem {
	if pid := s.successor.Load(); pid != 0 || prefork.HandedOver() {
		p := problemf(503, client.Superseded)
		p.successor = int(pid)
		return p
	}
	return nil
}

func (x *exchange) help() error {
	var paths []string
	for path := range routes {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	b := fmt.Appendf(nil, "control socket of %s, pid %d\n\n", x.name, os.Getpid())
	for _, path := range paths {
		r := routes[path]
		if r.help == "" {
			continue
		}
		b = fmt.Appendf(b, "%-4s %s %s\n", r.method, path, r.help)
	}
	b = append(b, "\nEvery POST takes timeout=60s, after which the thing goes on, and wait=0.\n"...)
	return answer(x.w, 200, typeText, b)
}

// chosen returns the pools that a request is for.
func (x *exchange) chosen() ([]*pool, error) {
	if !x.query.Has("pool") {
		return x.pools, nil
	}
	name := x.query.Get("pool")
	for _, p := range x.pools {
		if p.name == name {
			return []*pool{p}, nil
		}
	}
	if len(x.pools) == 1 && x.pools[0].name == "" {
		return nil, problemf(404, "there is no pool %.60q: the program has one, without a name", name)
	}
	return nil, problemf(404, "there is no pool %.60q; there are %s", name, x.poolNames())
}

// one returns the pool of a request that is for one.
func (x *exchange) one() (*pool, error) {
	pools, err := x.chosen()
	if err != nil {
		return nil, err
	}
	switch len(pools) {
	case 0:
		return nil, errNoPools
	case 1:
		return pools[0], nil
	}
	return nil, problemf(400, "there are several pools, name one with pool=: %s", x.poolNames())
}

// errNoPools is the answer to a command while there is no pool.
var errNoPools = problemf(409, "there is no pool now")

func (x *exchange) poolNames() string {
	var names []string
	for _, p := range x.pools {
		names = append(names, fmt.Sprintf("%q", p.name))
	}
	return cmp.Or(some(names, ", "), "none")
}
