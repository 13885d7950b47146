"""Which answers are equal to a reference: the kinds of docs/verifier.md, one row each; without the pool."""

from __future__ import annotations

import math

import pytest

from attnpo.data.boxes import boxed_texts, final_box
from attnpo.rewards.equality import Comparison, tolerance_of
from attnpo.rewards.reading import read
from attnpo.rewards.verdict import Rules
from attnpo.rewards.worker import LONGEST_ANSWER, answer_request
from attnpo.rewards.worker import judge as judge_and_extract


def judge(answer: str, reference: str, rules: Rules | None = None) -> str:
    return judge_and_extract(answer, reference, rules)[0]


def verdict(box: str, reference: str, rules: Rules | None = None) -> str:
    return judge(box if box.startswith(r"\boxed") else rf"So it is $\boxed{{{box}}}$.", reference, rules)


@pytest.mark.parametrize(
    ("reference", "box"),
    [
        (r"2 n", r"2n"),
        (r"\theta = 5", r"5"),
        (r"5", r"\theta = 5"),
        (r"1 = \zzz = x = 0", r"0"),
        (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k"),
        (r"-9 x", r"-9x"),
        (r"5 million", r"5{,}000{,}000"),
        (r"5 million", r"5 \times 10^6"),
        (r"2 dozen", r"24"),
        (r"4 lakh", r"400000"),
        (r"2 crore", r"20000000"),
        (r"1 quadrillion", r"10^{15}"),
        (r"5 sixths", r"\frac{5}{6}"),
        (r"5 squared", r"25"),
        (r"3+4i", r"3+4\mathrm{i}"),
        (r"2\mathrm{e}", r"2e"),
        (r"21", r"(3)(7)"),
        (r"7 am", r"7 am"),
        (r"Yes", r"Yes."),
        (r"Yes", r"\text{Yes}"),
        (r"\text{No solution}", r"No solution."),
        (r"No solution", r"\text{no solution}"),
        (r"x>1", r"x-1>0"),
        (r"x>1", r"1<x"),
        (r"x \ge 2", r"2 \le x"),
        (r"k \geqslant 2", r"k \ge 2"),
        (r"p - q", r"p-q"),
        (r"abc", r"bca"),
        (r"42", r"\boldsymbol{42}"),
        (r"42", r"{\large 42}"),
        (r"42", r"\bf 42"),
        (r"42", r"\mathbf{42}"),
        (r"42", r"\color{red}{42}"),
        (r"42", r"{\color{blue}42}"),
        (r"42", r"\underline{42}"),
        (r"42", r"\underline{\underline{42}}"),
        (r"x+1", r"x+1."),
        (r"\sqrt{2}", r"\sqrt{2}."),
        (r"42", r"The answer is 42"),
        (r"42", r"\text{The answer is }42"),
        (r"42", r"\text{the final answer is } \mathbf{42}"),
        (r"\dfrac{dv}{dt}=a", r"\frac{dv}{dt} = a"),
        (r"\frac{\pi}{2}", r"pi/2"),
        (r"-2\pi", r"-2*pi"),
        (r"e^{16}", r"exp(16)"),
        (r"4\sqrt{2}", r"4\sqrt(2)"),
        (r"4\sqrt{2}", r"4√2"),
        (r"4\sqrt{2}", r"4*sqrt(2)"),
        (r"\frac{1}{2}", r"1/2"),
        (r"\frac{1}{2}", r"½"),
        (r"3\frac{1}{2}", r"3½"),
        (r"\sqrt{2}", r"√2"),
        (r"x^2", r"x²"),
        (r"(1,2)", r"（1，2）"),
        (r"\sin 30^\circ", r"\frac12"),
        (r"\cos 60^{\circ}", r"0.5"),
        (r"\tan 45°", r"1"),
        (r"0.\overline{3}", r"\frac{1}{3}"),
        (r"0.1\overline{6}", r"\frac{1}{6}"),
        (r"\frac{1}{3}", r"0.333333"),
        (r"\emptyset", r"\varnothing"),
        (r"\varnothing", r"\{\}"),
        (r"\emptyset", r"∅"),
        (r"|x|>1", r"x<-1 \text{ or } x>1"),
        (r"x<-1 or x>1", r"(-\infty,-1)\cup(1,\infty)"),
        (r"12", r"12^{\text{th}}"),
        (r"12", r"12th"),
        (r"7", r"seven"),
        (r"7", r"\text{seven}"),
        (r"-5", r"–5"),
        (r"-5", r"−5"),
        (r"\text{all odd } n", r"all odd n"),
        (r"all odd n", r"\text{all odd } n"),
        (r"\text{All real numbers}", r"all real numbers"),
        (r"1,-2", r"-2,1"),
        (r"1,-2", r"\{1,-2\}"),
        (r"x=1, x=-2", r"x = 1 \text{ or } x=-2"),
        (r"x=1,-2", r"1,-2"),
        (r"\pm 3", r"3, -3"),
        (r"x = \pm 3", r"\pm 3"),
        (r"(-\infty, 0]", r"x \le 0"),
        (r"x \in (-\infty, 0]", r"x \le 0"),
        (r"[1,3]", r"1 \le x \le 3"),
        (r"\{x : x > 3\}", r"x > 3"),
        (r"\{x \in \mathbb{R} \mid x > 3\}", r"(3, \infty)"),
        (r"50\%", r"50"),
        (r"50\%", r"\frac{1}{2}"),
        (r"5\%", r"5 \text{ percent}"),
        (r"90^\circ", r"90"),
        (r"90^\circ", r"90°"),
        (r"90^\circ", r"90 \text{ degrees}"),
        (r"\$5", r"5"),
        (r"\$5", r"5 \text{ dollars}"),
        (r"5 \text{ cm}", r"5"),
        (r"5 \text{ cm}", r"5\,\mathrm{cm}"),
        (r"5", r"5 \text{ cm}"),
        (r"5", r"5 apples"),
        (r"15\mbox{ cm}^2", r"15 \text{ cm}^2"),
        (r"10,\!080", r"10{,}080"),
        (r"10,\!080", r"10 080"),
        (r"1,234,567", r"1234567"),
        (r"2^{10}", r"1024"),
        (r"\binom{5}{2}", r"10"),
        (r"5!", r"120"),
        (r"\frac{x}{2}+1", r"\frac{x+2}{2}"),
        (r"(x+1)^2", r"x^2+2x+1"),
        (r"y=2x+3", r"2x-y+3=0"),
        (r"y=2x+3", r"y-2x-3=0"),
        (r"x^2+y^2=1", r"y^2+x^2-1=0"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        (r"\log_2 8", r"3"),
        (r"\ln e^2", r"2"),
        (r"\text{(C)}", r"\text{C}"),
        (r"C", r"(C)"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
        (r"(2,\infty)", r"(2,+\infty)"),
        (r"1.0", r"1"),
        (r"0.5", r".5"),
        (r".5", r"0.50"),
        (r"2.50", r"2.5"),
        (r"1e-5", r"10^{-5}"),
        (r"1.2e3", r"1200"),
        (r"3:4", r"3:4"),
        (r"2\text{ and }3", r"3, 2"),
        (r"f(x)=2x", r"2x"),
        (r"f(x)=2x", r"f(x) = x \cdot 2"),
        (r"x^{2}y", r"yx^2"),
        (r"27", r"\boxed{27}"),
        (r"1+\sqrt{3} i", r"1+i\sqrt{3}"),
        (r"i^2", r"-1"),
        (r"\mathbb{R}", r"(-\infty,\infty)"),
        (r"-\frac{1}{3}", r"\frac{-1}{3}"),
        (r"-\frac{1}{3}", r"-1/3"),
        (r"6\sqrt[3]{4}", r"6 \cdot 4^{1/3}"),
        (r"5x - 7y + 11z + 4 = 0", r"-5x + 7y - 11z - 4 = 0"),
        (r"east", r"East"),
        (r"\text{Navin}", r"Navin"),
        (r"2 \text{ or } 3", r"2, 3"),
        (r"(1,2),(3,4)", r"(3,4),(1,2)"),
        (r"\frac{3}{4}", r"75\%"),
        (r"\frac{7}{2}", r"3.5"),
        (r"12", r"12.00"),
        (r"\text{twelve}", r"12"),
        (r"1:2", r"1:2"),
        (r"5^{\circ}\mathrm{C}", r"5"),
        (r"36 \pi \text{ cubic units}", r"36\pi"),
        (r"\text{one half}", r"\frac{1}{2}"),
        (r"\text{5 apples}", r"5"),
        (r"x = 5", r"5"),
        (r"5", r"n = 5"),
        (r"5", r"a+b=5"),
        (r"(3,4)", r"(x,y)=(3,4)"),
        (r"10", r"2+8=10"),
        (r"\text{Friday}", r"Friday"),
        (r"6", r"six"),
        (r"21", r"twenty-one"),
        (r"3/4", r"\tfrac34"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"\frac{1}{2}", r"\frac{2}{4}"),
        (r"a", r"\boxed{a}"),
        (r"x \neq 2", r"x \ne 2"),
        (r"\infty", r"+\infty"),
        (r"\overline{AB}", r"\overline{AB}"),
        (r"\text{Monday and Tuesday}", r"Monday and Tuesday"),
        (r"2x", r"x \cdot 2"),
        (r"\arcsin(1/2)", r"\frac{\pi}{6}"),
        (r"\cot x", r"\frac{\cos x}{\sin x}"),
        (r"-x", r"- x"),
        (r"1/2, 1/3", r"\frac13, \frac12"),
        (r"[0,1) \cup (2,3]", r"(2,3] \cup [0,1)"),
        (r"e^{i\pi}", r"-1"),
        (r"\text{ellipse}", r"an ellipse"),
        (r"3", r"3 dollars"),
        (r"45", r"45 km/h"),
        (r"5m", r"5 m"),
        (r"33", r"033"),
        (r"27", r"27.0"),
        (r"33", r"33."),
        (r"4.5e33", r"4.5 \times 10^{33}"),
        (r"4.5 \cdot 10^{33}", r"4.5e33"),
        (r"-1./3", r"-\frac{1}{3}"),
        (r"52_8", r"52_{8}"),
        (r"52_8", r"52"),
        (r"69, 84", r"84, 69"),
        (r"69,84", r"69}$ and $\boxed{84"),
        (r"-2,0,2", r"\pm 2, 0"),
        (r"3 \pm 2 \sqrt{2}", r"3 + 2\sqrt{2}, 3 - 2\sqrt{2}"),
        (r"(0,4]", r"0 < t \le 4"),
        (r"(-\infty,4]", r"t \le 4"),
        (r"(4,\infty)", r"4 < x"),
        (r"m \frac{d v}{d t}+b v=f", r"b v + m\frac{dv}{dt} = f"),
        (r"E_{1},E_{2}", r"E_2, E_1"),
        (r"m_{\max }=n^{2}-n-1", r"m_{max}=n^2-n-1"),
        (r"(-\infty,2]", r"x\leq 2"),
        (r"\{1,2\}", r"\lbrace 2,1\rbrace"),
        (r"(1,2,3)", r"\langle 1,2,3\rangle"),
        (r"12\text{ cm}", r"12\,{\rm cm}"),
        (r"42", r"**42**"),
        (r"42", r"\approx 42"),
        (r"7\text{ a.m.}", r"7am"),
        (r"x^2", r"x**2"),
        (r"2x", r"2*x"),
        (r"2^{n-1}", r"2^(n-1)"),
        (r"(0,\infty)", r"(0,oo)"),
        (r"\infty", r"infinity"),
        (r"2\pm\sqrt3", r"2+-\sqrt3"),
        (r"|x|", r"abs(x)"),
        (r"|x|", r"\lvert x\rvert"),
        (r"10^{-12}", r"10^-12"),
        (r"\frac13", r"0.(3)"),
        (r"x\equiv 3 \pmod 7", r"x \equiv 3 \bmod 7"),
        (r"[2,3]", r"2<=x<=3"),
        (r"5 cm²", r"5\text{ cm}^2"),
        (r"5\text{ cm}^2", r"5 cm²"),
        (r"36\text{ square feet}", r"36 \text{ sq ft}"),
        (r"36\text{ square feet}", r"36\text{ ft}^2"),
        (r"12\text{ in}^3", r"12\text{ cubic inches}"),
        (r"60\text{ mph}", r"60\text{ miles per hour}"),
        (r"9.8\text{ m/s}^2", r"9.8\ \mathrm{m}\cdot\mathrm{s}^{-2}"),
        (r"5", r"5\,\mathrm{kg\,m/s^2}"),
        (r"5", r"5\text{ years old}"),
        (r"5", r"5\text{ different ways}"),
        (r"5", r"5\text{ units of area}"),
        (r"300", r"300\text{ ordered pairs}"),
        (r"45\text{ minutes}", r"45\text{ min}"),
        (r"5\text{ km}", r"5 kilometers"),
        (r"20^\circ C", r"20^\circ"),
        (r"20^\circ C", r"20\text{ degrees Celsius}"),
        (r"20°C", r"20^\circ\mathrm{C}"),
        (r"27", r"27\text{.}"),
        (r"3x", r"3\text{x}"),
        (r"3k", r"3\mathrm{k}"),
        (r"\frac{3}{20}", r"3\text{ twentieths}"),
        (r"50", r"5 tens"),
        (r"3\text{ million dollars}", r"3{,}000{,}000"),
        (r"100", r"a hundred"),
        (r"12", r"\text{a dozen}"),
        (r"3 1/2", r"7/2"),
        (r"3\frac{1}{2}", r"3 1/2"),
        (r"\frac{dv}{dt}", r"dv/dt"),
        (r"\frac{dv}{dt}=-kv", r"dv/dt = -kv"),
        (r"\lfloor x\rfloor", r"floor(x)"),
        (r"\lceil x/2 \rceil", r"\operatorname{ceil}(x/2)"),
        (r"\lfloor \frac{n+1}{2} \rfloor", r"\lceil n/2 \rceil"),
        (r"\text{No solution}", r"\varnothing"),
        (r"\emptyset", r"\text{no solutions}"),
        (r"\mathbb{R}", r"\text{all real numbers}"),
        (r"1<x<3", r"x>1, x<3"),
        (r"1<x<3", r"x>1 \text{ and } x<3"),
        (r"x<-1 \text{ or } x>1", r"x<-1, x>1"),
        (r"x<1 \text{ or } 2<x<3", r"x<1 \lor x>2 \land x<3"),
        (r"\frac{d}{dt}(mv)", r"\frac{d}{dt}(vm)"),
        (r"2x", r"\frac{d}{dx}(x^2)"),
        (r"\gcd(a,b)", r"\gcd(b, a)"),
        (r"6", r"\gcd(12,18)"),
        (r"mgh", r"hgm"),
        (r"HHT", r"\text{HHT}"),
        (r"\angle ABC", r"\angle CBA"),
        (r"p \land q", r"q \land p"),
        (r"2\text{ and }3", r"2 \text{ or } 3"),
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}"),
        (r"\cos 36^\circ", r"\frac{1+\sqrt5}{4}"),
        (r"x=5", r"x=2+3=5"),
        (r"0.333", r"x = \frac{1}{3} = 0.333"),
        (r"n \text{ is prime}", r"\text{n is prime}"),
        (r"$2$ men, $3$ women", r"2 men, 3 women"),
        (r"3.5", r"3,5"),
        (r"1,22", r"1.22"),
        (r"2,3", r"3,2"),
        (r"12.5 percent increase", r"\text{12.5 percent increase}"),
        (r"2-3 days later than planned", r"2-3 days later than planned."),
        (r"1,200 days later than planned", r"1200 days later than planned"),
        (r"0.5", r"50\%"),
        (r"0.5\%", r"0.5"),
        (r"0.5\%", r"0.005"),
        (r"12.5", r"12.5\%"),
        (r"-x = 5", r"x = -5"),
        (r"\sqrt{x} = 5", r"\sqrt{x}=5"),
        (r"42", r"42_{10}"),
        (r"\frac{1}{\sin 30^\circ}", r"2"),
        (r"\frac{1}{\sin 30^\circ}", r"\frac{1}{\sin(30^\circ)}"),
        (r"\sqrt{\cos 60^\circ}", r"\frac{\sqrt2}{2}"),
        (r"(\cos 60^\circ, \sin 60^\circ)", r"(\frac12, \frac{\sqrt3}{2})"),
        (r"\sin(60^\circ-30^\circ)", r"\frac12"),
        (r"\tan(45^\circ+x)", r"\tan(x+45^\circ)"),
        (r"\sin^{2}(30^{\circ})", r"\frac14"),
        (r"2\sin 30^\circ \cos 30^\circ", r"\frac{\sqrt3}{2}"),
        (r"120", r"one hundred twenty"),
        (r"120", r"one hundred and twenty"),
        (r"100", r"\text{one hundred dollars}"),
        (r"2345", r"two thousand three hundred forty-five"),
        (r"203000", r"two hundred and three thousand"),
        (r"1700", r"seventeen hundred"),
        (r"120", r"a hundred twenty"),
        (r"100, 200", r"one hundred and two hundred"),
        (r"5,3", r"five and three"),
    ],
)
def test_right(reference: str, box: str) -> None:
    assert verdict(box, reference) == "right"


@pytest.mark.parametrize(
    ("reference", "box"),
    [
        (r"2 n", r"2"),
        (r"\theta = 5", r"\phi = 5"),
        (r"5", r"2+2 = 5"),
        (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}"),
        (r"-9 x", r"-9"),
        (r"7 i", r"7"),
        (r"7", r"7 i"),
        (r"5 million", r"5"),
        (r"5", r"5 million"),
        (r"2 dozen", r"2"),
        (r"2", r"2 lakh"),
        (r"5 sixths", r"5"),
        (r"5", r"5 sixths"),
        (r"5", r"5 squared"),
        (r"5 squared", r"5"),
        (r"3+4\mathrm{i}", r"7"),
        (r"7", r"3+4\mathrm{i}"),
        (r"10", r"(3)(7)"),
        (r"7 am", r"7 pm"),
        (r"f(2)=3", r"f(2)=4"),
        (r"I=5", r"I=6"),
        (r"\log_2(32)=5", r"\log_2(32)=6"),
        (r"30 mph, 40 mph", r"30"),
        (r"30 mph, 40 mph", r"40"),
        (r"-2,-2", r"-2"),
        (r"30", r"30 mph or 45 mph"),
        (r"30", r"30 \text{ or } 45"),
        (r"10^{-400}", r"10^{-401}"),
        (r"\frac{1}{200!}", r"\frac{1}{201!}"),
        (r"x^2+1=0", r"x^2+2=0"),
        (r"\sin 1", r"\sin 1^\circ"),
        (r"x=1, y=2", r"x=2, y=1"),
        (r"x=1, y=2", r"2, 1"),
        (r"x=5", r"y=5"),
        (r"x<1", r"y<1"),
        (r"x>1", r"x \ge 1"),
        (r"x>1", r"x<1"),
        (r"(1,2)", r"(2,1)"),
        (r"(1,2)", r"[1,2]"),
        (r"(1,2]", r"[1,2)"),
        (r"1,2,3", r"1,2"),
        (r"1,2", r"1,2,3"),
        (r"2", r"4|2"),
        (r"4", r"\boxed 42"),
        (r"5 cm", r"5 km"),
        (r"50\%", r"0.5\%"),
        (r"50\%", r"5\%"),
        (r"2", r"2x"),
        (r"2x", r"2"),
        (r"x^2", r"x^3"),
        (r"N", r"n"),
        (r"2RC", r"2rc"),
        (r"AB", r"ab"),
        (r"y=2x+3", r"y=2x+4"),
        (r"y=2x+3", r"z=2x+3"),
        (r"x^2+y^2=1", r"x^2+y^2=2"),
        (r"1,234", r"1,235"),
        (r"1,234", r"1"),
        (r"52_8", r"52_9"),
        (r"E_1", r"E_2"),
        (r"x_1", r"x_2"),
        (r"3\frac{1}{2}", r"\frac{3}{2}"),
        (r"0.\overline{3}", r"0.3"),
        (r"90^\circ", r"90^\circ + 1"),
        (r"\frac{1}{2}", r"\frac{1}{3}"),
        (r"Yes", r"No"),
        (r"even", r"neve"),
        (r"A", r"B"),
        (r"(A)", r"(B)"),
        (r"\text{east}", r"\text{west}"),
        (r"5", r"-5"),
        (r"-5", r"5"),
        (r"0", r"0.0000001"),
        (r"0.0001", r"0.0002"),
        (r"1-\frac{1}{2^{60}}", r"1"),
        (r"3 pi", r"3"),
        (r"\pi", r"3.14"),
        (r"\sqrt{2}", r"1.41"),
        (r"e", r"\pi"),
        (r"\frac{dv}{dt}=a", r"\frac{dw}{dt}=a"),
        (r"a+b", r"a-b"),
        (r"x", r"y"),
        (r"5", r"5 and 6"),
        (r"5", r"not 5"),
        (r"5", r"at least 5"),
        (r"5", r"5 \text{ or more}"),
        (r"5", r"\text{more than } 5"),
        (r"5", r"5 \frac{1}{2}"),
        (r"12:00", r"1:00"),
        (r"\{1,2\}", r"\{1,3\}"),
        (r"5x - 7y + 11z + 4 = 0", r"0"),
        (r"5", r"2x=5"),
        (r"5", r"x>5"),
        (r"5", r"x \ne 5"),
        (r"x=5", r"x \ne 5"),
        (r"n \equiv 27 \pmod{50}", r"n \equiv 27 \pmod{60}"),
        (r"f(x)=2x", r"g(x)=2x"),
        (r"|x|>1", r"x>1"),
        (r"x<-1 \text{ or } x>1", r"-1<x<1"),
        (r"1.23456789", r"1.23456780"),
        (r"\text{No solution}", r"\text{Solution}"),
        (r"\frac{a}{b}", r"\frac{b}{a}"),
        (r"(2,3)", r"(2,3,4)"),
        (r"100", r"10"),
        (r"10", r"100"),
        (r"\sin x", r"\cos x"),
        (r"5!", r"5"),
        (r"2^{10}", r"2^{11}"),
        (r"\$5", r"5 \text{ cents}"),
        (r"5 \text{ hours}", r"5 \text{ minutes}"),
        (r"5", r"5%5"),
        (r"7", r"7!"),
        (r"5", r"\sqrt{5}"),
        (r"5", r"5^2"),
        (r"1,2", r"(2,1)"),
        (r"\infty", r"-\infty"),
        (r"x^2-4=0", r"x=2"),
        (r"3", r"3, 3.5"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
        (r"3 or 4", r"3"),
        (r"6", r"six million"),
        (r"\text{half}", r"2"),
        (r"6", r"6 halves"),
        (r"6", r"6 dozen eggs"),
        (r"9", r"9 tenths of a mile"),
        (r"1", r"1 googol"),
        (r"5", r"5 thousand dollars"),
        (r"5", r"5 hundred"),
        (r"5", r"5 grand"),
        (r"5", r"5x"),
        (r"69,84", r"69"),
        (r"69,84", r"69, 84, 90"),
        (r"(2,4)", r"(4,2)"),
        (r"(3,4]", r"[3,4)"),
        (r"-1 < x \le 3", r"-1 < x < 3"),
        (r".0000672", r".0000673"),
        (r"1.325e-27", r"2.88e-19"),
        (r"1e-8", r"0"),
        (r"m \frac{d v}{d t}+b v=f", r"b v = f"),
        (r"\hbar \omega(v+1/2)-\frac{E_0^2 e^2}{2 m \omega^2}", r"\hbar \omega(v+1/2)+\frac{E_0^2 e^2}{2 m \omega^2}"),
        (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{2}{3} E_{2}"),
        (r"5", r"1 + \frac{5}{"),
        (r"y", r"y'"),
        (r"5\%", r"5 \text{ dollars}"),
        (r"x^2+1>0", r"x^2+2>0"),
        (r"\ln(1+10^{-45})", r"0"),
        (r"\lceil x \rceil", r"\lfloor x \rfloor+1"),
        (r"E_2", r"E_1"),
        (r"3", r"3\text{ Millionen}"),
        (r"3", r"3\text{ mille}"),
        (r"3", r"3\text{ millones}"),
        (r"3", r"3\text{ Mio.}"),
        (r"3", r"3\text{ tausend}"),
        (r"3", r"3 milliards"),
        (r"3", r"3万"),
        (r"3\text{ Millionen}", r"3"),
        (r"3", r"3\text{ twentieths}"),
        (r"3", r"3\text{ tens}"),
        (r"3", r"3\text{ doubled}"),
        (r"3", r"3\text{x}"),
        (r"3", r"3\mathrm{k}"),
        (r"3", r"3\text{M}"),
        (r"3\text{x}", r"3"),
        (r"3mg", r"3"),
        (r"5", r"5\text{ pounds doubled}"),
        (r"5", r"5\text{ pounds of a thousand}"),
        (r"5", r"5\text{ apples or more}"),
        (r"n", r"n \text{ prime}"),
        (r"n", r"n \text{ is prime}"),
        (r"42", r"42 \text{ is wrong}"),
        (r"42", r"\text{less than }42"),
        (r"42", r"anything but 42"),
        (r"42", r">42"),
        (r"20^\circ C", r"20^\circ F"),
        (r"20^\circ\text{C}", r"20\text{ degrees Fahrenheit}"),
        (r"5\text{ cm}^2", r"5\text{ cm}"),
        (r"5\text{ m/s}", r"5\text{ m/s}^2"),
        (r"5 cm²", r"5 cm³"),
        (r"$2$ men, $3$ women", r"2 men, 4 women"),
        (r"$2$ men, $3$ women", r"3"),
        (r"It works if $n$ is odd", r"n"),
        (r"$f$ works if $n=2$", r"2"),
        (r"It is not $5$", r"5"),
        (r"$3$ works but not $4$", r"4"),
        (r"5", r"x=6=5"),
        (r"x=5", r"x=6=5"),
        (r"\frac{d}{dt}(mv)", r"0"),
        (r"\frac{d}{dt}(mv)", r"\frac{d}{dt}(mw)"),
        (r"\gcd(a,b)", r"1"),
        (r"\gcd(a,b)", r"\gcd(a,c)"),
        (r"\operatorname{lcm}(a,b)", r"ab"),
        (r"\lim_{x\to 0} f(x)", r"\lim_{x\to 1} f(x)"),
        (r"x<1 \text{ and } x>2", r"x<3 \text{ and } x>4"),
        (r"x^2<0", r"x^2<-1"),
        (r"x < 10^{-20}", r"x<10^{-21}"),
        (r"(0,10^{-20})", r"(0,10^{-21})"),
        (r"\sqrt{10^{40}+1}", r"10^{20}"),
        (r"\sqrt{10^{400}+1}", r"10^{200}"),
        (r"\sqrt{2}", r"\sqrt{2}+10^{-50}"),
        (r"\sqrt{2}x", r"(\sqrt{2}+10^{-50})x"),
        (r"e^{10^{-50}}", r"1"),
        (r"tea", r"eat"),
        (r"HHT", r"HTH"),
        (r"ABC", r"ACB"),
        (r"\angle ABC", r"\angle BAC"),
        (r"p \land q", r"p \lor q"),
        (r"p ∧ q", r"p ∨ q"),
        (r"p \land q \lor r", r"p \lor q \land r"),
        (r"x>1 \text{ and } y<2", r"x>1 \text{ or } y<2"),
        (r"x=1 \text{ and } y=2", r"x=1 \text{ or } y=2"),
        (r"3\frac{1}{2}", r"3 1/3"),
        (r"\lfloor x\rfloor", r"x"),
        (r"\lfloor x\rfloor", r"ceil(x)"),
        (r"\frac{dv}{dt}", r"dw/dt"),
        (r"\emptyset", r"0"),
        (r"1<x<3", r"x>1 \text{ or } x<3"),
        (r"1<x<3", r"x>1, x<4"),
        (r"2,3", r"2.3"),
        (r"-1,7", r"-1.7"),
        (r"1,5", r"x=1.5"),
        (r"12.5 percent increase", r"125 percent increase"),
        (r"125 percent increase", r"12.5 percent increase"),
        (r"2-3 days later than planned", r"23 days later than planned"),
        (r"1 2 days later than planned", r"12 days later than planned"),
        (r"0.5", r"0.5\%"),
        (r"1/2", r"\frac12 \%"),
        (r"0.05", r"0.05\%"),
        (r"0.5\%", r"50"),
        (r"5", r"-x = 5"),
        (r"5", r"\sqrt{x} = 5"),
        (r"5", r"\neg x = 5"),
        (r"-x = 5", r"-x = 6"),
        (r"42", r"42_8"),
        (r"\frac{1}{\sin 30^\circ}", r"1"),
        (r"\sqrt{\cos 60^\circ}", r"\frac12"),
        (r"(\cos 60^\circ, \sin 60^\circ)", r"(\frac{\sqrt3}{2}, \frac12)"),
        (r"\sin(60^\circ-30^\circ)", r"\frac{\sqrt3}{2}"),
        (r"\tan(45^\circ+x)", r"\tan(45^\circ-x)"),
        (r"2000", r"one hundred twenty"),
        (r"100", r"one hundred twenty"),
        (r"2343", r"two thousand three hundred forty-five"),
        (r"10000", r"5 hundred twenty"),
        (r"1/1000", r"one hundred thousandths"),
        (r"300", r"one hundred and two hundred"),
        (r"20", r"one twenty"),
        (r"31", r"twenty eleven"),
    ],
)
def test_wrong(reference: str, box: str) -> None:
    assert verdict(box, reference) != "right"


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\frac{1}{2}", r"so the result is \boxed{\frac12}."),
        (r"\frac{1}{2}", r"\(\boxed{0.5}\)"),
        (r"50\%", r"\boxed{50\%}"),
        (r"50\%", r"\boxed{50}"),
        (r"50%", r"\boxed{0.5}"),
        ("$12$", "The answer is 12."),
        ("12 units", r"\boxed{12}"),
        ("18 dollars", r"\boxed{\$18}"),
        ("7.6 Z", r"\boxed{7.6 Z}"),
        (r"\boxed{42}", r"\boxed{42}"),
        (r"240\text{ ways.}", r"\boxed{240}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3,\pi/2)}"),
        ("2k+2", r"\boxed{2(k+1)}"),
        ("1,000", r"\boxed{1000}"),
        (r"\dfrac{1}{29,\!322,\!216}", r"\boxed{\dfrac{1}{29322216}}"),
        ("180", r"**Answer:** Tom's restaurant makes **\$180** a week."),
        (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}"),
        ("even", r"\boxed{\text{even}}"),
        ("even", r"\boxed{even}"),
        ("C", r"\boxed{\text{(C)}}"),
        (r"x \in [-2,7]", r"\boxed{[-2,7]}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}"),
        ("6-5i", r"\boxed{6 - 5i}"),
    ],
)
def test_right_in_a_response(reference: str, answer: str) -> None:
    assert judge(answer, reference) == "right"


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\frac{1}{2}", r"\boxed{\frac{1}{3}}"),
        ("2k+2", r"\boxed{2}"),  # outside delimiters math-verify reads this reference as 2
        ("6-5i", r"\boxed{6}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{3}"),
        ("even", r"\boxed{neve}"),
        ("even", r"\boxed{odd}"),
        ("12 units", r"\boxed{13}"),
        ("5", r"First \boxed{5}, no: the final answer is 5. \boxed{6}"),
    ],
)
def test_wrong_in_a_response(reference: str, answer: str) -> None:
    assert judge(answer, reference) == "wrong"


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is less than 42.",
        "The answer is anything but 42.",
        "The answer is not $42$.",
        "The answer isn't 42",
        "The answer is at most $42$.",
        "The answer is > 42",
        "It is between 40 and 42.",
        "42 is wrong.",
        "42 is not the answer.",
        "The answer is 42 or more.",
        "Since 42 is given, the answer is less than 42.",
        "Die Antwort ist 42 Millionen.",
        "答案是42万",
    ],
)
def test_a_number_that_the_prose_around_it_denies_is_not_right(answer: str) -> None:
    assert judge(answer, "42") != "right"


@pytest.mark.parametrize(
    "answer",
    [
        "It is not 41 but 42.",
        "This is less than 50. The answer is 42",
        "We know x is at least 30. So x = 42.",
        "The answer is exactly 42, not 41.",
        "so we get 42 apples",
        "The result is approximately 42.",
        "The answer is 42 because it is not 41",
        "It takes 42 miles",
        "答案是42个",
    ],
)
def test_denials_of_other_numbers_do_not_matter(answer: str) -> None:
    assert judge(answer, "42") == "right"


@pytest.mark.parametrize("reference", ["", "  ", r"\frac{1}{", "x^", "$t(0,4]$", "np.arcsin(10/13)"])
def test_reference_that_cannot_be_read_is_unverifiable(reference: str) -> None:
    assert judge(r"\boxed{1}", reference) == "unverifiable"


@pytest.mark.parametrize("answer", ["I do not know.", "\\boxed{}", "…", "<|im_end|>"])
def test_nothing_to_extract_is_no_answer(answer: str) -> None:
    assert judge(answer, "5") == "no_answer"


def test_answer_that_python_refuses_to_parse_is_not_right() -> None:
    assert judge("9" * 10_000, "5") != "right"  # beyond the digits that int() takes


def test_of_a_very_long_answer_the_end_is_read() -> None:
    assert judge("\\[ x " * LONGEST_ANSWER + "\nso \\boxed{5}", "5") == "right"


def test_odd_characters() -> None:
    reply = answer_request({"id": 3, "answer": "\0\ud800 \\boxed{5}", "reference": "5"})
    assert reply == {"id": 3, "verdict": "right", "extracted": "5", "fired": ["equal strings"]}
    assert answer_request({"id": 4, "reference": "\udfff5"}).keys() == {"id", "readable"}


@pytest.mark.parametrize("text", [r"\boxed {5}", r"\boxed5", r"\fbox{5}"])
def test_boxes_in_another_spelling(text: str) -> None:
    assert judge(f"So {text}.", "5") == "right"


@pytest.mark.parametrize(
    ("reference", "tolerance"),
    [
        ("3.61e-10", 0.005e-10),
        ("1.6", 0.016),  # half a unit would be 3 %
        ("4e33", 0.01 * 4e33),
        ("-0.125", 0.0005),
        ("20", 0.0),
        ("-3", 0.0),
        (r"\frac{1}{3}", 0.0),
        ("x", 0.0),
    ],
)
def test_measured_quantities_may_be_off_by_half_a_digit_or_one_percent(reference: str, tolerance: float) -> None:
    assert math.isclose(tolerance_of(reference, {"measured": True}), tolerance, rel_tol=1e-9)
    assert tolerance_of(reference, {}) == 0


def test_tolerance_decides_at_its_edge() -> None:
    assert tolerance_of("4.2", {"tolerance": 0.1}) == 0.1
    for text, same in (("4.3", True), ("4.31", False), (r"\frac{43}{10}", True), (r"\sqrt{18}", True), ("4.2i", False)):
        assert Comparison(tolerance=0.1).same(read("4.2")[0], read(text)[0]) == same
    assert not Comparison(tolerance=10).same(read("4.2")[0], read("x")[0])


def test_rules_of_a_comparison() -> None:
    assert verdict(r"1.59 \mathrm{~cm}", "1.6", {"measured": True}) == "right"
    assert verdict("1.5", "1.6", {"measured": True}) == "wrong"
    assert verdict("1.59", "1.6") == "wrong"
    assert verdict(r"4.2\%", "4.2", {"unit": "%", "tolerance": 0.1}) == "right"
    assert verdict("4.15", "4.2", {"unit": "%", "tolerance": 0.1}) == "right"
    assert verdict("4.5", "4.2", {"unit": "%", "tolerance": 0.1}) == "wrong"


def test_what_is_read_is_handed_back() -> None:
    assert judge_and_extract(r"\boxed{4} no, \[ \boxed{ \dfrac{1}{2} } \]", "0.5")[1] is not None
    assert judge_and_extract(r"It is \boxed{\dfrac{1}{2}}.", "0.5")[1] == r"\dfrac{1}{2}"
    assert judge_and_extract("I cannot say.", "0.5") == ("no_answer", None, [])
    assert len(judge_and_extract(r"\boxed{" + "1+" * 300 + "1}", "3")[1] or "") == 500


def test_boxes_may_hold_braces_and_stay_open() -> None:
    assert boxed_texts(r"\boxed{\{1, 2\}} \boxed{\frac{a}{b_{c}}}") == [r"\{1, 2\}", r"\frac{a}{b_{c}}"]
    assert boxed_texts(r"\boxed{1 \boxed{2}") == []
    assert boxed_texts(r"\boxed{" * 50_000) == []


@pytest.mark.parametrize(
    ("reference", "box", "expected"),
    [
        # floor(√3) = 1 and floor(√4) = 2, though both are 0 or 1 below 4
        (r"\lfloor\sqrt{n-1}\rfloor", r"\lfloor\sqrt{n}\rfloor", "wrong"),
        (r"\lfloor\frac{2 n-1}{5}\rfloor", r"\lfloor\frac{2 n-1}{6}\rfloor", "wrong"),
        (r"\lfloor\frac{2 n-1}{5}\rfloor", r"\lfloor\frac{2 n}{5}\rfloor", "wrong"),
        (r"\lceil\frac{n}{2}\rceil", r"\lceil\frac{n}{3}\rceil", "wrong"),
        (r"\lfloor\frac{n+2}{2}\rfloor", r"\lfloor n/2\rfloor+1", "right"),
        (r"\lfloor\frac{2 n-1}{5}\rfloor", r"\left\lfloor\frac{2 n-1}{5}\right\rfloor", "right"),
    ],
)
def test_formulas_that_are_constant_on_stretches(reference: str, box: str, expected: str) -> None:
    assert verdict(box, reference) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (r"$y_1 = \boxed{x+5}$ and $y_2 = \boxed{x-2}$", "x+5, x-2"),
        (r"\( a = \boxed{1} \), \( b_{12} = \boxed{2} \)", "1, 2"),
        ("\\boxed{35}\n\nn = \\boxed{36}", "36"),  # the same answer once more
        (r"\boxed{35}, so n = \boxed{36}", "36"),
    ],
)
def test_boxes_of_several_names_are_a_list(answer: str, expected: str) -> None:
    box = final_box(answer)
    assert box is not None
    assert box[1] == expected


@pytest.mark.parametrize("counted", ["million dollars", "millions of dollars", "thousand people", "dozen eggs"])
def test_a_count_word_before_a_unit_is_no_unit(counted: str) -> None:
    assert verdict(rf"3\text{{ {counted}}}", "3") != "right"
    assert verdict("3", rf"3\text{{ {counted}}}") != "right"
    assert verdict(rf"3\text{{ {counted}}}", rf"3\text{{ {counted}}}") == "right"
