package faults_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// A chaos run has a manager with workers and a reaper under random faults and
// external load. After each step everything must be in order.

var (
	chaosSeed  = flag.Uint64("chaos.seed", 0, "the seed of a chaos run; 0 chooses one")
	chaosSteps = flag.Int("chaos.steps", 0, "how many steps a chaos run has; 0 means 50, with -short 10, and with -long so many that each kind comes 1,000 times, and kills 10,000")
)

// The kinds of steps.
const (
	chaosKill        = "kill a worker"
	chaosCrash       = "crash a worker"
	chaosStop        = "stop and continue a worker"
	chaosEnd         = "have a worker end"
	chaosSignal      = "forward a signal"
	chaosGrow        = "one worker more"
	chaosShrink      = "one worker less"
	chaosRoll        = "rolling reload"
	chaosReload      = "reload"
	chaosBreak       = "rolling reload that fails"
	chaosUpgrade     = "upgrade"
	chaosBadUpgrade  = "upgrade that fails"
	chaosSlow        = "slow to become ready"
	chaosCannotSpawn = "spawns that fail"
	chaosFullPipe    = "a log that nobody reads"
	chaosFreeze      = "stop and continue the manager"
	chaosOrphans     = "orphans"
	chaosMurder      = "kill the manager"
)

var chaosKinds = []string{chaosKill, chaosCrash, chaosStop, chaosEnd, chaosSignal, chaosGrow, chaosShrink, chaosRoll, chaosReload, chaosBreak, chaosUpgrade,
	chaosBadUpgrade, chaosSlow, chaosCannotSpawn, chaosFullPipe, chaosFreeze, chaosOrphans, chaosMurder}

// A chaosStep is a fault, the worker that it concerns, and whether another
// worker is killed in addition.
type chaosStep struct {
	kind   string
	target int
	also   bool
}

// planChaos returns the steps of a run. The steps do not depend on their
// outcome.
func planChaos(seed uint64, steps int) []chaosStep {
	r := rand.New(rand.NewPCG(seed, 1))
	var all []chaosStep
	add := func(kind string) {
		all = append(all, chaosStep{kind, r.IntN(1000), r.IntN(4) == 0})
	}
	if steps > 0 {
		for len(all) < steps {
			if kind := chaosKinds[r.IntN(len(chaosKinds))]; r.IntN(2) == 0 {
				add(chaosKill)
			} else {
				add(kind)
			}
		}
		return all
	}
	for _, kind := range chaosKinds {
		n := 1000
		if kind == chaosKill {
			n *= 10
		}
		for range n {
			add(kind)
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func TestChaosPlan(t *testing.T) {
	one, two, other := fmt.Sprint(planChaos(7, 200)), fmt.Sprint(planChaos(7, 200)), fmt.Sprint(planChaos(8, 200))
	if one != two {
		t.Error("the same seed gives two sequences")
	}
	if one == other {
		t.Error("two seeds give the same sequence")
	}
	counts := make(map[string]int)
	for _, s := range planChaos(9, 0) {
		counts[s.kind]++
	}
	for _, kind := range chaosKinds {
		if counts[kind] != 1000 && (kind != chaosKill || counts[kind] != 10_000) {
			t.Errorf("%s: %d times", kind, counts[kind])
		}
	}
}

// chaosRun is a run in progress.
type chaosRun struct {
	t       *testing.T
	p       *preforktest.Program
	dir     string
	address string
	pipe    *slackPipe
	manager int
	workers []int // by their ordinal
	max     int
	step    string

	mu     sync.Mutex
	cut    map[int]bool   // workers whose exit may cut a connection
	cuts   []time.Time    // times at which a connection may have been cut
	out    [][2]time.Time // intervals without a program
	fail   []chaosFailure
	output []string // by programs that have exited
}

// chaosFailure is a request that failed.
type chaosFailure struct {
	worker   int // 0 if no request has been answered
	from, to time.Time
	err      error
}

func TestChaos(t *testing.T) {
	seed, steps := *chaosSeed, *chaosSteps
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	if steps == 0 && !testprog.Long() {
		steps = testprog.Times(500)
	}
	plan := planChaos(seed, steps)
	t.Logf("go test -run 'Chaos$' -chaos.seed %d -chaos.steps %d", seed, steps)
	other := preforktest.Start(t, "bystander")
	other.Expect(`^bystander`)
	r := &chaosRun{t: t, dir: t.TempDir(), cut: make(map[int]bool), pipe: newSlackPipe(t)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = ln.Addr().String()
	ln.Close()
	defer func() {
		if t.Failed() {
			t.Log(r.step)
		}
	}()
	r.start()
	r.settle()
	load := preforktest.StartLoad(t, 4, r.request)
	counts := make(map[string]int)
	began := time.Now()
	for i, s := range plan {
		r.step = fmt.Sprintf("step %d of %d, seed %d: %s (also %t)", i+1, len(plan), seed, s.kind, s.also)
		r.do(s)
		r.settle()
		counts[s.kind]++
		if i%1000 == 999 {
			t.Logf("%d steps done in %v", i+1, time.Since(began).Round(time.Second))
		}
	}
	result := load.Stop()
	r.p.Signal(term)
	testprog.ExpectSuccess(t, r.p)
	r.judge()
	other.Signal(term)
	other.Expect(`^bystander got terminated$`)
	if lines := other.Lines(); len(lines) != 2 {
		t.Errorf("a bystander was signalled: %q", lines)
	}
	t.Logf("%d requests, %d cut by a death, the longest took %v; %v", result.Requests, result.Failed, result.Longest.Round(time.Millisecond), counts)
}
