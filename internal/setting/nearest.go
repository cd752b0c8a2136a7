package setting

import (
	"slices"
	"strings"
)

// Nearest is the known name that a mistyped one most likely stands for, or empty. Words within a
// name are parted by "_".
func Nearest(name string, known []string) string {
	words := func(s string) []string { return strings.Split(s, "_") }
	best, least := "", 4 // further apart they are different names
	for _, k := range known {
		d := distance(name, k)
		differs := func(w string) bool { return !slices.Contains(words(k), w) }
		if !slices.ContainsFunc(words(name), differs) { // words left out or in another order
			d = min(d, 3)
		}
		if d < least && 2*d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance counts the characters to insert, leave out or replace to make one name the other
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
