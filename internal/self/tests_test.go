package self

import "testing"

// TestRunsTestsAgain checks in which processes New warns.
func TestRunsTestsAgain(t *testing.T) {
	for _, tt := range []struct {
		path string
		env  map[string]string
		want bool
	}{
		{"/srv/site.test", nil, true},
		{"/srv/site.test", map[string]string{"PREFORKTEST_MAIN": "1"}, false},
		{"/srv/site.test", map[string]string{"PREFORKTEST_PROGRAM": "site"}, false},
		{"./site", nil, false},
	} {
		got := runsTestsAgain(tt.path, func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok })
		if got != tt.want {
			t.Errorf("%s with %v: %v", tt.path, tt.env, got)
		}
	}
}
