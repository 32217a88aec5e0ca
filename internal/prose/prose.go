// Package prose counts words that make technical English hard to read. It reads
// the comments of Go files and the text of Markdown files; STYLE.md explains why
// each word is limited.
//
// Counts are compared with [Limits], which are rates per 10,000 words. The rules
// are simple, and they err on the strict side:
//
//	what    each "what", except in a sentence that ends in a question mark
//	told    each "told"
//	say     each "say", "says", "said" and "saying"
//	nobody  each "nobody", "somebody" and "anybody", except after "user"
//	anew    each "anew", "meanwhile", "heed", "heeds", "heeded" and "save for"
//	where   each "where", except after a noun that names a place ("the directory
//	        where"), after a verb such as "know" or "shows", in "where it is" and
//	        the like, and in a sentence that ends in a question mark
//	tobe    each "is to be" and "are to be"
//	should  each "should", the only class with a lower limit
//
// A word that is quoted counts like any other. These parts of a file are not
// text, and count neither as hits nor as words:
//
//   - in Go: directives, comment lines indented by a tab (code, in a doc
//     comment), and the output of an Example
//   - in Markdown: code blocks, inline code, HTML comments and tags, link
//     targets and bare addresses
//
// Three further classes are not rates, and any hit is a failure:
//
//	long    a line with a Go comment that is wider than 100 columns, unless an
//	        address makes it so; a tab is four columns wide
//	text    a word of these classes, except "should", in a string literal of Go
//	        code that is not a test; a literal without a space is not text
//	name    a declared identifier or a file name with the word "heir" or
//	        "bequeath", or with "rest" for leftovers. A local variable, a
//	        parameter or a result may be named rest, as with strings.Cut.
package prose

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Hit is one place in a file that counts towards a class.
type Hit struct {
	Class string
	File  string
	Line  int
	Text  string // words around the hit, or the identifier
}

func (h Hit) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", h.File, h.Line, h.Class, h.Text)
}

// A Count is the number of words and the hits of some text.
type Count struct {
	Words int
	Hits  []Hit
}

// Add adds the words and hits of other.
func (c *Count) Add(other Count) {
	c.Words += other.Words
	c.Hits = append(c.Hits, other.Hits...)
}

// Of returns the number of hits of a class.
func (c Count) Of(class string) int {
	n := 0
	for _, hit := range c.Hits {
		if hit.Class == class {
			n++
		}
	}
	return n
}

// Rate returns the hits of a class per 10,000 words.
func (c Count) Rate(class string) float64 {
	if c.Words == 0 {
		return 0
	}
	return float64(c.Of(class)) * 10000 / float64(c.Words)
}

// A Limit bounds the rate of a class. It is an upper limit by default.
type Limit struct {
	Class string
	Rate  float64 // per 10,000 words
	Lower bool    // at least Rate, instead of at most
}

// Met reports whether the rate of c is within the limit.
func (l Limit) Met(c Count) bool {
	if l.Lower {
		return c.Rate(l.Class) >= l.Rate
	}
	return c.Rate(l.Class) <= l.Rate
}

func (l Limit) String() string {
	if l.Lower {
		return fmt.Sprintf("≥%g", l.Rate)
	}
	return fmt.Sprintf("≤%g", l.Rate)
}

// Limits are the limits of STYLE.md, in the order of the table.
var Limits = []Limit{
	{Class: "what", Rate: 8},
	{Class: "told", Rate: 3},
	{Class: "say", Rate: 6},
	{Class: "nobody", Rate: 2},
	{Class: "anew", Rate: 1},
	{Class: "where", Rate: 12},
	{Class: "tobe", Rate: 2},
	{Class: "should", Rate: 10, Lower: true},
}

// Absolute are the classes of which any hit is a failure.
var Absolute = []string{"long", "text", "name"}

// Files returns the Go and Markdown files at or below the paths, sorted.
// Directories named testdata or vendor and the .git directory are skipped.
func Files(paths ...string) ([]string, error) {
	found := map[string]bool{}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && isSkipped(entry.Name()):
				return fs.SkipDir
			case !entry.IsDir() && isText(name):
				found[name] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func isSkipped(dir string) bool { return dir == ".git" || dir == "testdata" || dir == "vendor" }

func isText(name string) bool {
	ext := filepath.Ext(name)
	return ext == ".go" || ext == ".md"
}

// File counts one file, whose name decides how it is read.
func File(name string) (Count, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return Count{}, err
	}
	if strings.HasSuffix(name, ".md") {
		return Markdown(name, src), nil
	}
	return Go(name, src)
}
