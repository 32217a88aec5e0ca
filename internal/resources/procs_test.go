package resources

import (
	"math"
	"runtime"
	"slices"
	"strconv"
	"testing"
)

// TestShare checks the default GOMAXPROCS: the CPUs divided by the workers,
// rounded up, and at most the CPUs of one worker.
func TestShare(t *testing.T) {
	for _, tt := range []struct{ procs, per, workers, want int }{
		{1, 0, 1, 1},
		{1, 0, 10, 1},
		{2, 0, 1, 2},
		{2, 0, 2, 1},
		{8, 0, 3, 3},
		{8, 0, 4, 2},
		{8, 0, 8, 1},
		{8, 0, 9, 1},
		{8, 0, math.MaxInt, 1},
		{8, 0, 0, 8}, // SetMaxWorkers(0)
		{8, 2, 1, 2},
		{8, 2, 3, 2},
		{8, 2, 4, 2},
		{8, 2, 16, 1},
		{8, 8, 2, 4},
	} {
		if got := (&Settings{procs: tt.procs, per: tt.per}).share(tt.workers); got != tt.want {
			t.Errorf("%d CPUs, %d for each worker, %d workers: GOMAXPROCS %d, want %d", tt.procs, tt.per, tt.workers, got, tt.want)
		}
	}
}

// TestEnvGOMAXPROCS checks which value takes precedence.
func TestEnvGOMAXPROCS(t *testing.T) {
	all := "GOMAXPROCS=" + strconv.Itoa(runtime.GOMAXPROCS(0))
	for name, tt := range map[string]struct {
		value   int
		env     string
		command bool
		want    []string
	}{
		"default":                      {0, "", false, []string{all}},
		"environment":                  {0, "7", false, nil},
		"given":                        {3, "", false, []string{"GOMAXPROCS=3"}},
		"given, environment":           {3, "7", false, []string{"GOMAXPROCS=3"}},
		"left alone":                   {-1, "", false, nil},
		"left alone, environment":      {-1, "7", false, nil},
		"Command, default":             {0, "", true, nil},
		"Command, given":               {3, "", true, []string{"GOMAXPROCS=3"}},
		"Command, left alone":          {-1, "", true, nil},
		"Command, default environment": {0, "7", true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMAXPROCS", tt.env)
			s, err := Check(Config{GOMAXPROCS: tt.value}, tt.command)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Env(1); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	if _, err := Check(Config{GOMAXPROCS: -2}, false); err == nil {
		t.Error("-2 is accepted")
	}
}
