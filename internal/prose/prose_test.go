package prose

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// found returns the hits as "class line".
func found(count Count) string {
	var all []string
	for _, hit := range count.Hits {
		all = append(all, fmt.Sprintf("%s %d", hit.Class, hit.Line))
	}
	return strings.Join(all, ", ")
}

func TestClasses(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"It sends what is left.", "what 1"},
		{"What's left is sent. What is sent is gone.", "what 1, what 1"},
		{"What is left?", ""},
		{"Is it left? What is left is sent.", "what 1"},
		{"What is left, in a worker (if any)?", ""},
		{"It is told to stop; the manager tells it.", "told 1"},
		{"It says, said, say, and is saying; the essay.", "say 1, say 1, say 1, say 1"},
		{"Nobody asks; somebody's and anybody, as user nobody.", "nobody 1, nobody 1, nobody 1"},
		{"Bind anew; meanwhile heed it, save for one, and save two.", "anew 1, anew 1, anew 1, anew 1"},
		{"Where it fails, it is sent again.", "where 1"},
		{"It fails where the kernel is old.", "where 1"},
		{"The directory where it runs; it shows where that is; go where it is.", ""},
		{"It runs elsewhere. Where does it run?", ""},
		{"It is to be closed; they are\nto be closed; it has to be.", "tobe 1, tobe 1"},
		{"A caller should check; it shouldn’t wait.", "should 1, should 1"},
		{"Somewhat told-off users retold it.", ""},
	} {
		if got := found(Markdown("a.md", []byte(test.text))); got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	text := strings.Join([]string{
		"# Told",                        // 1
		"",                              // 2
		"It says `what is`, and ``what", // 3
		"` is`` [nobody](what/nobody_(told).md \"told\") <!-- told",    // 4
		"told --> <b title=\"what\">leads</b> to https://told/told be", // 5
		"```",                          // 6
		"told",                         // 7
		"````",                         // 8
		"- a told",                     // 9
		"",                             // 10
		"      also told in a list",    // 11
		"",                             // 12
		"A paragraph.",                 // 13
		"",                             // 14
		"    told",                     // 15
		"    told",                     // 16
		"",                             // 17
		"| what | is |",                // 18
		"|---|---|",                    // 19
		"| a | to be? |",               // 20
		"[what]: https://example/told", // 21
		"A ` and what",                 // 22
	}, "\n")
	count := Markdown("a.md", []byte(text))
	want := "told 1, say 3, nobody 4, told 9, told 11, what 18, what 22"
	if got := found(count); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if want := 25; count.Words != want {
		t.Errorf("%d words, want %d", count.Words, want)
	}
}

func TestGo(t *testing.T) {
	text := strings.Join([]string{
		"//go:build told",          // 1
		"",                         // 2
		"// Package a is told",     // 3
		"//",                       // 4
		"//\ttold := code",         // 5
		"//",                       // 6
		"//   - said in a list is", // 7
		"//     to be counted",     // 8
		"package a",                // 9
		"",                         // 10
		"//nolint:told",            // 11
		"/* what",                  // 12
		"is told */",               // 13
		"func f() {",               // 14
		"\tprintln(`told`) // told " + strings.Repeat("x", 72),        // 15
		"\tprintln(`told`) // told " + strings.Repeat("x", 73),        // 16
		"\t// https://told/" + strings.Repeat("x", 100) + " somebody", // 17
		"\t// Output:", // 18
		"\t// told",    // 19
		"}",            // 20
	}, "\n")
	for name, want := range map[string]string{
		"a.go":      "told 3, say 7, tobe 7, what 12, told 13, told 15, long 16, told 16, nobody 17, told 19",
		"a_test.go": "told 3, say 7, tobe 7, what 12, told 13, told 15, long 16, told 16, nobody 17",
	} {
		count, err := Go(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := found(count); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, err := Go("a.go", []byte("told")); err == nil {
		t.Error("no error for a file that is not Go")
	}
}

// Log lines and errors are text, too. Names, tags and import paths are not.
func TestLiterals(t *testing.T) {
	text := `package a

import "what is told"

type t struct {
	x int "json: what"
}

func f() {
	log("worker told to stop", "told", "what")
	log(` + "`first\nis to be told`" + ` + "Should it\x20be what it is? " + "it should")
	err("%d told", 'w')
}
`
	for name, want := range map[string]string{"a.go": "text 10, text 11, text 11, text 13", "a_test.go": ""} {
		count, err := Go(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := found(count); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if count.Words != 0 {
			t.Errorf("%d words: they would change the rates", count.Words)
		}
	}
}

func TestNames(t *testing.T) {
	text := `package a

var rest, heirPID, their, restart, theirs = 1, 2, 3, 4, 5

type RestEvent struct{ Rest, heir, arrest int }

func (RestEvent) killRest(rest, HTTPRest int) (rest2 int) {
	rest, bequeathed := 1, 2
	for rest := range rest {
		var rest = rest
	}
}
`
	count, err := Go("rest.go", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, hit := range count.Hits {
		got = append(got, hit.Text)
	}
	slices.Sort(got)
	want := "HTTPRest RestEvent Rest bequeathed heir heirPID killRest rest rest.go rest2"
	wanted := strings.Fields(want)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		t.Errorf("%q, want %q", got, wanted)
	}
}

func TestLimits(t *testing.T) {
	count := Count{Words: 10000, Hits: []Hit{{Class: "told"}, {Class: "told"}, {Class: "told"}, {Class: "should"}}}
	for _, test := range []struct {
		limit Limit
		want  bool
	}{
		{Limit{Class: "told", Rate: 3}, true},
		{Limit{Class: "told", Rate: 2}, false},
		{Limit{Class: "what", Rate: 0}, true},
		{Limit{Class: "should", Rate: 1, Lower: true}, true},
		{Limit{Class: "should", Rate: 2, Lower: true}, false},
	} {
		if got := test.limit.Met(count); got != test.want {
			t.Errorf("%s %s: %v, want %v", test.limit.Class, test.limit, got, test.want)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.go", "b/c.md", "b/d.txt", "testdata/e.go", "b/vendor/f.go", ".git/g.md", ".github/h.md"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Files(dir, filepath.Join(dir, "a.go"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i], _ = filepath.Rel(dir, got[i])
	}
	if want := []string{".github/h.md", "a.go", "b/c.md"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := Files(filepath.Join(dir, "missing")); err == nil {
		t.Error("no error for a path that does not exist")
	}
}
