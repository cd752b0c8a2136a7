package isdp

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"strings"
)

const (
	// How the vendor's server calls a token that is not valid, in XML and in JSON.
	xmlRefusal  = "InvalidTokenException"
	jsonRefusal = "invalid_token"

	maxRefusal = 16 << 10 // more bytes than a refusal has
)

// refusesToken reports whether an answer says that the token is not valid (any more): any 401 does,
// and on whatever status the vendor's InvalidTokenException in XML, or the OAuth error
// invalid_token in JSON.
func (r *reply) refusesToken() bool {
	if r.status == http.StatusUnauthorized {
		return true
	}
	if len(r.utf8) > maxRefusal || !bytes.Contains(r.utf8, []byte(xmlRefusal)) &&
		!bytes.Contains(r.utf8, []byte(jsonRefusal)) {
		return false // as any page, without a closer look
	}
	e := oauthError(r.utf8)
	return e.root == xmlRefusal || e.root == "" && e.code == jsonRefusal
}

// An oauthRefusal is an OAuth error in either of the forms that the vendor's server gives it.
type oauthRefusal struct {
	root string // the root element of XML; empty: it is JSON, or neither
	code string // "invalid_token"; empty: there is none, or it is no text
	said bool   // there is an error, a code or something else
}

// oauthError reads {"error": "invalid_token", …} and
// <InvalidTokenException><error>invalid_token</error>…, with blanks around names and values.
func oauthError(body []byte) (e oauthRefusal) {
	body = bytes.TrimSpace(body)
	if bytes.HasPrefix(body, []byte("<")) {
		e.readXML(body)
	} else if bytes.HasPrefix(body, []byte("{")) {
		var fields map[string]json.RawMessage
		if unmarshalAsMeant(body, &fields) != nil {
			return e
		}
		for name, raw := range fields {
			if strings.EqualFold(strings.TrimSpace(name), "error") && !isNull(raw) {
				isText := json.Unmarshal(raw, &e.code) == nil
				e.code = strings.TrimSpace(e.code)
				e.said = !isText || e.code != ""
			}
		}
	}
	return e
}

func (e *oauthRefusal) readXML(body []byte) {
	d := xml.NewDecoder(bytes.NewReader(body))
	// Names are ASCII in all charsets that come.
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	for depth := 0; ; {
		tok, err := d.Token()
		if err != nil {
			return
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if depth++; depth == 1 {
				e.root = tok.Name.Local
				e.said = strings.HasSuffix(e.root, "Exception")
			}
			if depth == 2 && tok.Name.Local == "error" {
				_ = d.DecodeElement(&e.code, &tok) // what there is of it, where it is cut short
				e.code = strings.TrimSpace(e.code)
				e.said = true
				return
			}
		case xml.EndElement:
			depth--
		}
	}
}
