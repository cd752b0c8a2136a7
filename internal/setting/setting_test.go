package setting

import "testing"

func TestText(t *testing.T) {
	const text = "are {BaseURL} and {PageSize} right? {} {x}"
	if got := Text(text); got != "are BaseURL and PageSize right? {} {x}" {
		t.Errorf("without names: %s", got)
	}
	Use(map[string]string{"BaseURL": "VENDOR_URL"})
	defer Use(nil)
	if got := Text(text); got != "are VENDOR_URL and PageSize right? {} {x}" {
		t.Errorf("with names: %s", got)
	}
	for _, c := range []struct {
		err  Error
		want string
	}{
		{Error{Field: "BaseURL", Want: "a URL"}, "VENDOR_URL: want a URL"},
		{Error{Field: "PageSize", Value: "x\n", Want: "a number"},
			`PageSize is "x\n": want a number`},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
