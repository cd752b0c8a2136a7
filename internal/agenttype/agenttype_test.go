package agenttype

import (
	"encoding/json"
	"os"
	"testing"
)

func TestParse(t *testing.T) {
	for typed, want := range map[string]string{
		"0": "0", "1": "1", "2": "2", "10": "10", " 10 ": "10", "１０": "10", "7": "7", "010": "010",
		"safety": "0", "Quality": "1", "PATROL": "2", "video": "10", "Video Call": "10",
		"video-call": "10", "video_call": "10", "safety inspection": "0", "video-call agents": "10",
		"安全检查": "0", "质检": "1", "巡检": "2", "视频": "10", "视频通话": "10", " 视频 通话": "10",
		"_": "_", "none": "_", "无类型": "_",
		"VIP": "VIP", "a-1": "a-1", "video-2": "video-2", "x": "x",
		"a234567890123456789012345678901b": "a234567890123456789012345678901b",
	} {
		if token, _, ok := Parse(typed); !ok || token != want {
			t.Errorf("%q is %q, %t; want %q", typed, token, ok, want)
		}
	}
	for typed, meant := range map[string]string{
		"vidoe": "video", "Vidio": "video", "videos": "video", "saftey": "safety",
		"qualty": "quality", "视频通活": "视频通话",
		"": "", " ": "", "a.b": "", "a b": "", "*": "", ">": "", "视频呼": "", "__": "", "é": "",
		"a2345678901234567890123456789012c": "", "10\x00": "",
	} {
		if token, got, ok := Parse(typed); ok || got != meant {
			t.Errorf("%q is %q, %t, meant %q; want %q", typed, token, ok, got, meant)
		}
	}
}

// What the board calls a type can be typed.
func TestBoardsWords(t *testing.T) {
	for _, file := range []string{"en.json", "zh-CN.json"} {
		text, err := os.ReadFile("../board/words/" + file)
		var words map[string]any
		if err == nil {
			err = json.Unmarshal(text, &words)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range Types {
			word, _ := words["type."+typ.Token].(string)
			if token, _, ok := Parse(word); !ok || token != typ.Token {
				t.Errorf("%s: %q is %q, %t; want %q", file, word, token, ok, typ.Token)
			}
			for _, name := range []string{typ.Name, typ.Chinese, typ.Short} {
				if token, _, _ := Parse(name); token != typ.Token {
					t.Errorf("%q is %q, want %q", name, token, typ.Token)
				}
			}
		}
	}
}
