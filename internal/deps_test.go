// Package internal tests the structure of the repository and its documents.
package internal

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/prefork-go/prefork"

// pkg is a package of this module.
type pkg struct {
	path    string // below the module
	imports []string
	doc     string
}

// packages lists all packages of this module, as the go command sees them on the
// system of this test.
func packages(t *testing.T) []pkg {
	t.Helper()
	needGo(t)
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}}{{"\t"}}{{.Doc}}{{"\t"}}{{join .Imports " "}}`, "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		p := pkg{path: inModule(f[0]), doc: f[1]}
		for _, i := range strings.Fields(f[2]) {
			if i == module || strings.HasPrefix(i, module+"/") {
				p.imports = append(p.imports, inModule(i))
			}
		}
		all = append(all, p)
	}
	return all
}

func inModule(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func needGo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH")
	}
}

// The floors of the repository, from the lowest. A package imports only packages
// of lower floors; ground floor packages import nothing of the repository.
var floors = [][]string{
	{ // ground
		"internal/activation", "internal/binary", "internal/change", "internal/envdir", "internal/fd", "internal/flocks", "internal/follow", "internal/hook",
		"internal/loadgen", "internal/logrelay", "internal/marker", "internal/pause", "internal/picture",
		"internal/plain", "internal/pool", "internal/port", "internal/proc", "internal/prose", "internal/reaper",
		"internal/resources", "internal/reuseport", "internal/safedir", "internal/scoreboard", "internal/sig", "internal/sigqueue",
		"internal/wire", "preforktest",
	},
	{ // middle, and extensions of one ground floor package
		"internal/board", "internal/control", "internal/inbox", "internal/launch", "internal/self", "internal/sockets",
		"internal/proc/proctest", "internal/reaper/early", "internal/prose/count",
	},
	{"."},
	{"preforkhttp", "internal/testprog", "internal/values"},
}

// TestFloors checks the order of the packages. Each must be on a floor, so that a
// new one gets its place here first.
func TestFloors(t *testing.T) {
	floor := make(map[string]int)
	for i, names := range floors {
		for _, name := range names {
			floor[name] = i
		}
	}
	seen := 0
	for _, p := range packages(t) {
		if p.path == "internal" || strings.HasPrefix(p.path, "tests/") {
			continue // packages of tests alone
		}
		at, ok := floor[p.path]
		if !ok {
			t.Errorf("%s is on no floor", p.path)
			continue
		}
		seen++
		for _, i := range p.imports {
			if below, ok := floor[i]; !ok || below >= at {
				t.Errorf("%s imports %s, which is not on a lower floor", p.path, i)
			}
		}
	}
	if seen != len(floor) {
		t.Errorf("%d packages are on a floor, and %d are listed: remove those that are gone", seen, len(floor))
	}
}

// TestContracts prints the packages with the first sentences of their package
// comments, which are their contracts: go test -v -run Contracts ./internal.
func TestContracts(t *testing.T) {
	for _, p := range packages(t) {
		if p.path == "internal" || strings.HasPrefix(p.path, "tests/") {
			continue
		}
		name := p.path[strings.LastIndexByte(p.path, '/')+1:]
		if name == "." {
			name = "prefork"
		}
		if !strings.HasPrefix(p.doc, "Package "+name+" ") && !strings.HasPrefix(p.doc, "Command "+name+" ") {
			t.Errorf("%s has no package comment that begins with its name: %q", p.path, p.doc)
		}
		t.Logf("%-24s %s", p.path, p.doc)
	}
}

// deps returns all packages that a package of this module links.
func deps(t *testing.T, path string) []string {
	t.Helper()
	needGo(t)
	cmd := exec.Command("go", "list", "-deps", path)
	if strings.HasPrefix(path, module+"/ops/") {
		cmd.Dir = "../ops" // another module
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", path, err)
	}
	return strings.Fields(string(out))
}

// The linked packages decide how fast a worker starts, so the root links none of
// those whose initialization takes time, and as few other modules as possible.
func TestDependencies(t *testing.T) {
	for path, modules := range map[string][]string{
		module:                  {"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener"},
		module + "/preforkhttp": {"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener"},
		module + "/preforktest": {"golang.org/x/sys/"},
		module + "/ops/journal": {"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener"},
		module + "/ops/service": {"golang.org/x/sys/", "github.com/lestrrat-go/server-starter/listener", "github.com/fsnotify/fsnotify"},
	} {
		for _, dep := range deps(t, path) {
			first, _, _ := strings.Cut(dep, "/")
			own := dep == module || strings.HasPrefix(dep, module+"/")
			if !strings.Contains(first, ".") || own {
				continue
			}
			if !slices.ContainsFunc(modules, func(m string) bool { return strings.HasPrefix(dep, m) }) {
				t.Errorf("%s links %s", path, dep)
			}
		}
	}
	for _, path := range []string{module, module + "/ops/journal", module + "/ops/service"} {
		for _, dep := range deps(t, path) {
			if dep == "net/http" || dep == "os/user" || dep == "testing" || strings.HasPrefix(dep, "crypto/") || strings.Contains(dep, "compress/") {
				t.Errorf("%s links %s, which delays the start of every worker", path, dep)
			}
		}
	}
	for _, dep := range deps(t, module+"/internal/pool") {
		if dep == "os" || dep == "net" || dep == "os/signal" {
			t.Errorf("internal/pool links %s, but the policy must be pure", dep)
		}
	}
}
