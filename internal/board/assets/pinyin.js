// How a Chinese name is spelt in pinyin, without a dictionary: browsers sort Chinese by pinyin, so a character is read like the
// last of these that does not come after it. The table has the first character of each syllable in that order.

const starts = [...(''
  + 'a吖ai哎an安ang肮ao凹ba丷bai挀ban扳bang邦bao勹bei卑ben奔beng伻bi屄bian边biao灬bie憋bin汃bing冫bo癶bu峬ca嚓cai偲can参cang仓cao撡ce冊cen嵾ceng曽cha叉'
  + 'chai芆chan辿chang伥chao抄che车chen抻cheng阷chi吃chong充chou抽chu出chuai揣chuan踹chuang刅chui吹chun旾chuo逴ci呲cong匆cou凑cu粗cuan汆cui崔cun邨'
  + 'cuo搓da咑dai呆dan丹dang当dao刀de嘚den扥deng灯di氐dian敁diao刁die爹ding丁diu丟dong东dou吺du厾duan耑dui垖dun吨duo多e妸ei诶en奀eng鞥er儿fa发fan帆fang匚'
  + 'fei飞fen分feng丰fiao覅fo仏fou紑fu夫ga旮gai侅gan甘gang冈gao皋ge戈gen根geng刯gong工gou勾gu估gua瓜guai乖guan关guang光gui归gun丨guo呙ha哈hai咍han佄hang夯'
  + 'hao茠he诃hei黒hen拫heng亨hong叿hou齁hu乎hua花huai怀huan欢huang巟hui灰hun昏huo吙ji丌jia加jian戋jiang江jiao艽jie阶jin巾jing坕jiong冂jiu丩ju凥juan姢'
  + 'jue噘jun军ka咔kai开kan刊kang忼kao尻ke匼ken肎keng劥kong空kou抠ku扝kua夸kuai蒯kuan宽kuang匡kui亏kun坤kuo扩la垃lai来lan兰lang啷lao捞le仂lei勒leng崚li哩'
  + 'lian奁liang良liao撩lie毟lin拎ling伶liu溜lo囖long龙lou瞜lu噜lv驴luan娈lve掠lun抡luo啰ma妈mai埋man嫚mang牤mao猫me嚒mei呅men椚meng擝mi咪mian宀miao喵'
  + 'mie乜min民ming名miu谬mo摸mou哞mu毪na拏nai腉nan囡nang囔nao孬ne疒nei娞nen恁ni妮nian拈niang娘niao鸟nie捏nin囜ning宁niu妞nong农nou羺nu奴nv女nuan奻nve疟'
  + 'nun黁nuo郍ou讴pa妑pai拍pan眅pang乓pao抛pei呸pen喷peng匉pi丕pian囨piao剽pie氕pin姘ping聘po钋pou剖pu仆qi七qia掐qian千qiang呛qiao悄qie苆qin亲qing靑'
  + 'qiong卭qiu丘qu区quan奍que炔qun夋ran呥rang穣rao娆re惹ren人reng扔ri日rong戎rou厹ru邚ruan堧rui婑run瞤ruo捼sa仨sai毢san三sang桒sao掻se閪sen森seng僧sha杀'
  + 'shai筛shan山shang伤shao弰she奢shen申sheng升shi尸shou収shu书shua刷shuai衰shuan闩shuang双shui脽shun吮shuo说si厶song忪sou凁su苏suan狻sui夊sun孙suo唆'
  + 'ta他tai囼tan坍tang汤tao夲te忑teng熥ti剔tian天tiao旫tie帖ting厅tong囲tou偷tu凸tuan湍tui推tun吞tuo乇wa屲wai歪wan弯wang尢wei危wen昷weng翁wo挝wu乌xi夕'
  + 'xia呷xian仙xiang乡xiao灱xie些xin心xing星xiong凶xiu休xu吁xuan吅xue削xun坃ya丫yan恹yang央yao幺ye倻yi一yin囙ying应yo哟yong佣you优yu込yuan囦yue曰yun晕'
  + 'za帀zai災zan兂zang匨zao傮ze则zei贼zen怎zeng増zha扎zhai夈zhan枬zhang张zhao佋zhe蜇zhen贞zheng凧zhi之zhong中zhou州zhu朱zhua抓zhuan专zhuang妆zhui隹'
  + 'zhun宒zhuo拙zi乲zong宗zou邹zu租zuan钻zui厜zun尊zuo嘬'
).matchAll(/([a-z]+)(.)/gu)].map(m => ({ syllable: m[1], first: m[2] }))

// Family names that are read otherwise than the same character elsewhere.
const family = { 单: 'shan', 曾: 'zeng', 仇: 'qiu', 解: 'xie', 查: 'zha', 朴: 'piao', 区: 'ou', 盖: 'ge', 乐: 'yue', 翟: 'zhai',
  缪: 'miao', 覃: 'qin', 种: 'chong', 员: 'yun', 都: 'du', 尉: 'yu', 谌: 'chen', 沈: 'shen', 长: 'zhang', 令: 'ling' }

const order = new Intl.Collator('zh-CN-u-co-pinyin')
const known = new Map() // by character

function syllable(c) {
  let is = known.get(c)
  if (is === undefined) {
    let low = 0, high = starts.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (order.compare(starts[middle].first, c) <= 0) low = middle + 1
      else high = middle
    }
    is = starts[low - 1]?.syllable ?? ''
    known.set(c, is)
  }
  return is
}

// spelt is what a name may be looked for by, each after a space: from each of its characters on, the syllables and their
// first letters. 王建国 is found by wangjianguo, jianguo, wjg and jg. Of ü it has v, as keyboards do.
export function spelt(name) {
  const read = chars => chars.map((syllables, i) => ' ' + chars.slice(i).join('') + ' ' + chars.slice(i).map(s => s[0]).join('')).join('')
  const chars = name.match(/\p{Script=Han}/gu)
  if (!chars) return ''
  const usual = chars.map(syllable).filter(Boolean)
  const own = family[chars[0]]
  return read(usual) + (own ? read([own, ...usual.slice(1)]) : '')
}
