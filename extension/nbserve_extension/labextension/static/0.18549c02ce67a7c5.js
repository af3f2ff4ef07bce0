"use strict";(self.rspackChunknbserve=self.rspackChunknbserve||[]).push([[0],{16(e,t,n){var s=n(17),r=n.n(s),o=n(18),i=(n.n(o))()(r());i.push([e.id,`.nbserve-sidebar {
  display: flex;
  flex-direction: column;
  min-width: 180px;
  overflow: hidden;
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
  line-height: 1.4;
}

:where(.nbserve-sidebar, .nbserve-logs) :where(h2, h3, p, ul) {
  margin: 0;
  padding: 0;
  font-size: inherit;
  list-style: none;
}

.nbserve-sidebar [hidden],
.nbserve-logs [hidden] {
  display: none;
}

.nbserve-sidebar header {
  display: flex;
  align-items: center;
  justify-content: space-between;
  padding: 4px 4px 4px 12px;
  border-bottom: var(--jp-border-width) solid var(--jp-border-color2);
}

.nbserve-sidebar h2 {
  font-weight: 600;
  color: var(--jp-ui-font-color0);
}

.nbserve-servers {
  flex: 1;
  overflow: auto;
  outline: none;
}

.nbserve-servers[data-stale] {
  opacity: 0.5;
}

.nbserve-servers section {
  padding: 6px 0;
}

.nbserve-servers section + section {
  border-top: var(--jp-border-width) solid var(--jp-border-color2);
}

.nbserve-head {
  display: flex;
  align-items: flex-start;
  padding: 4px 4px 4px 12px;
}

.nbserve-servers section > p {
  padding: 0 12px 4px;
}

.nbserve-text {
  display: flex;
  flex: 1;
  flex-direction: column;
  min-width: 0;
  overflow-wrap: anywhere;
}

.nbserve-sidebar h3 {
  font-weight: 600;
}

.nbserve-faint,
.nbserve-condition {
  font-size: var(--jp-ui-font-size0);
}

.nbserve-faint {
  color: var(--jp-ui-font-color2);
}

/* The whole row opens the panel; the buttons at its end lie above. Its last line goes on below them. */
.nbserve-servers li {
  position: relative;
  display: grid;
  grid-template-columns: auto minmax(0, 1fr) auto auto;
  padding: 4px 4px 4px 12px;
  font-variant-numeric: tabular-nums;
}

.nbserve-servers li > .nbserve-faint {
  grid-column: 2 / -1;
}

.nbserve-servers li:hover {
  background: var(--jp-layout-color2);
}

.nbserve-open {
  padding: 0;
  border: 0;
  background: none;
  color: var(--jp-ui-font-color0);
  font: inherit;
  font-weight: 600;
  text-align: left;
  cursor: pointer;
}

.nbserve-open::after {
  position: absolute;
  inset: 0;
  content: "";
}

.nbserve-open:focus-visible {
  outline: none;
}

.nbserve-open:focus-visible::after,
.nbserve-icon:focus-visible,
.nbserve-to-end:focus-visible,
.nbserve-servers:focus-visible,
.nbserve-lines:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: -2px;
}

.nbserve-icon {
  position: relative;
  display: flex;
  flex: none;
  align-self: start;
  padding: 4px;
  border: 0;
  border-radius: var(--jp-border-radius);
  background: none;
  cursor: pointer;
}

.nbserve-icon:hover:not([aria-disabled="true"]) {
  background: var(--jp-layout-color3);
}

.nbserve-icon[aria-disabled="true"] {
  opacity: 0.4;
  cursor: default;
}

.nbserve-dot {
  flex: none;
  width: 8px;
  height: 8px;
  margin: 0.4em 8px 0 0;
  border-radius: 50%;
  background: var(--nbserve-tone);
}

li[data-tone="good"] {
  --nbserve-tone: var(--jp-success-color1, #2e9d5b);
}

li[data-tone="waiting"] {
  --nbserve-tone: var(--jp-warn-color1, #c98a00);
}

li[data-tone="broken"] {
  --nbserve-tone: var(--jp-error-color1, #d64545);
}

/* Told apart without colours too. */
li[data-tone="waiting"] .nbserve-dot {
  border: 2px solid var(--nbserve-tone);
  box-sizing: border-box;
  background: none;
}

li[data-tone="broken"] .nbserve-dot {
  border-radius: 0;
}

.nbserve-failure,
.nbserve-empty {
  padding: 8px 12px;
  line-height: 1.5;
}

.nbserve-failure {
  border-left: 3px solid var(--jp-error-color1);
  background: var(--jp-layout-color2);
}

.nbserve-empty {
  color: var(--jp-ui-font-color2);
}

.nbserve-empty code {
  font-family: var(--jp-code-font-family);
  font-size: var(--jp-code-font-size);
  color: var(--jp-ui-font-color1);
  white-space: nowrap;
}

.nbserve-panel {
  padding: 12px;
  overflow: auto;
  background: var(--jp-layout-color0);
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
  outline: none;
}

.nbserve-logs {
  display: flex;
  flex-direction: column;
  background: var(--jp-layout-color0);
  color: var(--jp-content-font-color1);
  font-size: var(--jp-ui-font-size1);
}

.nbserve-lines {
  flex: 1;
  padding: 8px 12px;
  overflow: auto;
  font-family: var(--jp-code-font-family);
  font-size: var(--jp-code-font-size);
  line-height: 1.45;
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}

.nbserve-lines time {
  color: var(--jp-ui-font-color2);
}

.nbserve-lines [data-level="WARNING"] strong {
  color: var(--jp-warn-color0);
}

.nbserve-lines [data-level="ERROR"] strong,
.nbserve-lines [data-level="CRITICAL"] strong {
  color: var(--jp-error-color1);
}

.nbserve-to-end {
  position: absolute;
  right: 24px;
  bottom: 16px;
  padding: 4px 12px;
  border: var(--jp-border-width) solid var(--jp-border-color1);
  border-radius: 12px;
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font: inherit;
  cursor: pointer;
}
`,""]),n.d(t,{},{A:i})},18(e){e.exports=function(e){var t=[];return t.toString=function(){return this.map(function(t){var n="",s=void 0!==t[5];return t[4]&&(n+="@supports (".concat(t[4],") {")),t[2]&&(n+="@media ".concat(t[2]," {")),s&&(n+="@layer".concat(t[5].length>0?" ".concat(t[5]):""," {")),n+=e(t),s&&(n+="}"),t[2]&&(n+="}"),t[4]&&(n+="}"),n}).join("")},t.i=function(e,n,s,r,o){"string"==typeof e&&(e=[[null,e,void 0]]);var i={};if(s)for(var a=0;a<this.length;a++){var l=this[a][0];null!=l&&(i[l]=!0)}for(var d=0;d<e.length;d++){var p=[].concat(e[d]);s&&i[p[0]]||(void 0!==o&&(void 0===p[5]||(p[1]="@layer".concat(p[5].length>0?" ".concat(p[5]):""," {").concat(p[1],"}")),p[5]=o),n&&(p[2]&&(p[1]="@media ".concat(p[2]," {").concat(p[1],"}")),p[2]=n),r&&(p[4]?(p[1]="@supports (".concat(p[4],") {").concat(p[1],"}"),p[4]=r):p[4]="".concat(r)),t.push(p))}},t}},17(e){e.exports=function(e){return e[1]}},10(e){var t=[];function n(e){for(var n=-1,s=0;s<t.length;s++)if(t[s].identifier===e){n=s;break}return n}function s(e,s){for(var r={},o=[],i=0;i<e.length;i++){var a=e[i],l=s.base?a[0]+s.base:a[0],d=r[l]||0,p="".concat(l," ").concat(d);r[l]=d+1;var c=n(p),h={css:a[1],media:a[2],sourceMap:a[3],supports:a[4],layer:a[5]};if(-1!==c)t[c].references++,t[c].updater(h);else{var u=function(e,t){var n=t.domAPI(t);return n.update(e),function(t){t?(t.css!==e.css||t.media!==e.media||t.sourceMap!==e.sourceMap||t.supports!==e.supports||t.layer!==e.layer)&&n.update(e=t):n.remove()}}(h,s);s.byIndex=i,t.splice(i,0,{identifier:p,updater:u,references:1})}o.push(p)}return o}e.exports=function(e,r){var o=s(e=e||[],r=r||{});return function(e){e=e||[];for(var i=0;i<o.length;i++){var a=n(o[i]);t[a].references--}for(var l=s(e,r),d=0;d<o.length;d++){var p=n(o[d]);0===t[p].references&&(t[p].updater(),t.splice(p,1))}o=l}}},12(e){var t={};e.exports=function(e,n){var s=function(e){if(void 0===t[e]){var n=document.querySelector(e);if(window.HTMLIFrameElement&&n instanceof window.HTMLIFrameElement)try{n=n.contentDocument.head}catch(e){n=null}t[e]=n}return t[e]}(e);if(!s)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");s.appendChild(n)}},14(e){e.exports=function(e){var t=document.createElement("style");return e.setAttributes(t,e.attributes),e.insert(t,e.options),t}},13(e,t,n){e.exports=function(e){var t=n.nc;t&&e.setAttribute("nonce",t)}},11(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var t=e.insertStyleElement(e);return{update:function(n){var s,r,o;s="",n.supports&&(s+="@supports (".concat(n.supports,") {")),n.media&&(s+="@media ".concat(n.media," {")),(r=void 0!==n.layer)&&(s+="@layer".concat(n.layer.length>0?" ".concat(n.layer):""," {")),s+=n.css,r&&(s+="}"),n.media&&(s+="}"),n.supports&&(s+="}"),(o=n.sourceMap)&&"u">typeof btoa&&(s+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(o))))," */")),e.styleTagTransform(s,t,e.options)},remove:function(){var e;null===(e=t).parentNode||e.parentNode.removeChild(e)}}}},15(e){e.exports=function(e,t){if(t.styleSheet)t.styleSheet.cssText=e;else{for(;t.firstChild;)t.removeChild(t.firstChild);t.appendChild(document.createTextNode(e))}}},2(e,t,n){n.r(t),n.d(t,{default:()=>Q});var s=n(3),r=n(4),o=n(5),i=n(6),a=n(7);class l extends Error{status;constructor(e,t){super(e),this.status=t}}class d{settings=a.ServerConnection.makeSettings();get baseUrl(){return this.settings.baseUrl}async servers(){try{return await this.call("GET","endpoints")}catch(e){throw e instanceof l&&404===e.status?new l("Jupyter's server does not know nbserve's extension. Install nbserve-torch where Jupyter runs, and restart Jupyter.",404):e}}async logs(e,t,n){return await this.call("GET",`${p(e)}/logs`,{...c(e),lines:`${t}`,after:`${n}`})}async stopEndpoint(e){await this.call("DELETE",p(e),c(e))}async stopServer(e){await this.call("DELETE",`servers/${encodeURIComponent(e)}`)}async call(e,t,n={}){let s=i.URLExt.join(this.settings.baseUrl,"nbserve/api",t)+i.URLExt.objectToQueryString(n),r=await this.send(s,e),o=function(e){try{return JSON.parse(e)}catch{return null}}(await r.text());if(!r.ok)throw new l(function(e,t){if(401===e.status||403===e.status)return"Jupyter does not know you any more. Reload the page to log in.";let n=t?.message;return"string"==typeof n&&n?n:`Jupyter's server answered ${e.status} ${e.statusText}.`}(r,o),r.status);return o}async send(e,t){try{return await a.ServerConnection.makeRequest(e,{method:t,cache:"no-store"},this.settings)}catch(e){throw Error(e instanceof a.ServerConnection.NetworkError?"Jupyter's server does not answer. Is it still running?":String(e))}}}function p(e){return`endpoints/${encodeURIComponent(e.name)}`}function c(e){return{server:e.serverId}}let h=new o.LabIcon({name:"nbserve:endpoints",svgstr:`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="24">
  <path class="jp-icon3 jp-icon-selectable" fill="#616161" fill-rule="evenodd" d="M4.5 4A1.5 1.5 0 0 0 3 5.500v4A1.500 1.500 0 0 0 4.500 11h15A1.500 1.500 0 0 0 21 9.500v-4A1.500 1.500 0 0 0 19.500 4zM6 6.300a1.200 1.200 0 1 1 0 2.400a1.200 1.200 0 1 1 0-2.400M10 6.750h8v1.500h-8zM4.500 13A1.500 1.500 0 0 0 3 14.500v4A1.500 1.500 0 0 0 4.500 20h15A1.500 1.500 0 0 0 21 18.500v-4A1.500 1.500 0 0 0 19.500 13zM6 15.300a1.200 1.200 0 1 1 0 2.400a1.200 1.200 0 1 1 0-2.400M10 15.750h5v1.500h-5z"/>
</svg>`});var u=n(8),v=n(9);function f(e,t={},...n){let s=document.createElement(e);for(let[e,n]of Object.entries(t))"function"==typeof n?s.addEventListener(e.slice(2),n):void 0!==n&&!1!==n&&s.setAttribute(e,String(n));return s.append(...n.filter(e=>!!e)),s}class b{parent;keyOf;make;rows=new Map;constructor(e,t,n){this.parent=e,this.keyOf=t,this.make=n}update(e){let t=this.rows;for(let[n,s]of(this.rows=new Map(e.map(e=>[this.keyOf(e),t.get(this.keyOf(e))??this.make(e)])),t))this.rows.has(n)||s.element.remove();e.forEach((e,t)=>{let n=this.rows.get(this.keyOf(e));n.update(e);let s=this.parent.children[t]??null;s!==n.element&&this.parent.insertBefore(n.element,s)})}}function m(e,t){e.textContent!==t&&(e.textContent=t)}class g extends v.Widget{api;place;failure=f("p",{role:"status",class:"nbserve-failure",hidden:!0});empty=f("p",{class:"nbserve-empty"},"No lines yet: what the handler prints comes here.");lines=f("div",{role:"log",tabindex:0,class:"nbserve-lines"});toEnd=f("button",{type:"button",class:"nbserve-to-end",hidden:!0,onclick:()=>this.follow()},"newest lines");poll;last=0;isFollowing=!0;constructor(e,t){super(),this.api=e,this.place=t,this.addClass("nbserve-logs"),this.lines.setAttribute("aria-label",`logs of ${t.name}`),this.lines.addEventListener("scroll",()=>this.onScroll()),this.node.append(this.failure,this.empty,this.lines,this.toEnd),this.poll=new u.Poll({name:`nbserve:logs:${t.name}`,factory:()=>this.ask(),frequency:{interval:1e3,max:15e3,backoff:!0},standby:()=>!this.isVisible||document.hidden})}dispose(){this.poll.dispose(),super.dispose()}onAfterAttach(){this.poll.refresh()}onAfterShow(){this.poll.refresh()}onActivateRequest(){this.lines.focus()}async ask(){try{this.append(await this.api.logs(this.place,this.last?5e3:500,this.last)),this.tell("")}catch(t){let e=t instanceof l&&404===t.status;throw this.tell(e?`${this.place.name} is not running any more.`:t.message),t}}append(e){let t=e.filter(e=>e.number>this.last);if(t.length){for(this.last=t[t.length-1].number,this.empty.hidden=!0,this.lines.append(...t.map(w));this.lines.childElementCount>5e3;)this.lines.firstElementChild.remove();this.isFollowing&&this.follow()}}tell(e){this.failure.hidden=!e,m(this.failure,e),e&&(this.empty.hidden=!0)}follow(){this.lines.scrollTop=this.lines.scrollHeight,this.onScroll()}onScroll(){let{scrollHeight:e,scrollTop:t,clientHeight:n}=this.lines;this.isFollowing=e-t-n<16,this.toEnd.hidden=this.isFollowing}}function w(e){let t=null===e.worker?"":`[${e.worker}] `,n="INFO"===e.level?"":`${e.level.toLowerCase()} `,s=new Date(1e3*e.time_s);return f("div",{"data-level":e.level},f("time",{datetime:s.toISOString()},`${s.toLocaleTimeString("en-GB")} `),f("span",{class:"nbserve-faint"},t),f("strong",{},n),e.text)}class y extends v.Widget{baseUrl;place;hasBegun=!1;unmount=()=>void 0;constructor(e,t){super(),this.baseUrl=e,this.place=t,this.addClass("nbserve-panel"),this.node.tabIndex=-1}dispose(){this.unmount(),super.dispose()}onAfterAttach(){this.isVisible&&this.begin()}onAfterShow(){this.begin()}onActivateRequest(){this.node.focus()}async begin(){if(this.hasBegun)return;this.hasBegun=!0;let e=f("div");this.node.replaceChildren(e);try{let t=i.URLExt.join(this.baseUrl,"nbserve/static/panel.js"),n=await import(t);this.isDisposed||(this.unmount=n.mount(e,{...this.place,baseUrl:this.baseUrl}))}catch(n){let t=`The panel cannot be shown: ${n.message}. Is nbserve-torch installed where Jupyter runs? Then restart Jupyter, and reload this page.`;e.replaceChildren(f("p",{role:"alert",class:"nbserve-failure"},t))}}}let x={READY:"good",STARTING:"waiting",HELD:"waiting",STOPPING:"waiting"};function k(e){return e.notebook?e.notebook.split("/").pop():e.detached?"detached server":`kernel ${e.owner_pid}`}function $(e,t){return j(`${e.toLocaleString("en")} ${t}${1===e?"":"s"}`)}function j(e){return e.replaceAll(" ","\xa0")}function S(e,t){let{notebook:n}=e;return e.detached&&null!==n&&!t.some(e=>`/${n}`.endsWith(`/${e}`))}function E(e){return e.reduce((e,[,t])=>e+t,0)}class A{server;actions;element;title=f("h3");note=f("span",{class:"nbserve-faint"});empty=f("p",{class:"nbserve-faint"},"no endpoints yet");stop;endpoints;constructor(e,t){this.server=e,this.actions=t;let n=f("ul");this.stop=C(o.stopIcon,()=>t.stopServer(this.server));let s=f("div",{class:"nbserve-head"},f("div",{class:"nbserve-text"},this.title,this.note),this.stop);this.element=f("section",{},s,n,this.empty),this.endpoints=new b(n,({name:e})=>e,()=>new I(()=>this.server,t))}update(e){this.server=e;let t=this.actions.notebooks();m(this.title,k(e)),m(this.note,`server\xa0${e.pid}, ${!e.detached?"ends with its kernel":S(e,t)?"detached, its kernel is gone":"detached"}`),this.element.setAttribute("aria-label",`server ${e.pid}, ${k(e)}`),this.element.firstElementChild.setAttribute("title",function(e,t){let n=e.notebook?`Started from ${e.notebook}. `:"";if(!e.detached)return`${n}It ends with the kernel that started it, process ${e.owner_pid}.`;let s=S(e,t)?"No kernel runs for that notebook in this Jupyter. ":"";return`${n}${s}It goes on until somebody stops it.`}(e,t)),T(this.stop,`Stop server ${e.pid}`),this.empty.hidden=e.endpoints.length>0,this.endpoints.update(e.endpoints)}}class I{server;element;open;logs;stop;condition=f("span",{class:"nbserve-condition"});traffic=f("span",{class:"nbserve-faint"});endpoint;constructor(e,t){this.server=e,this.open=f("button",{type:"button",class:"nbserve-open",onclick:()=>t.openPanel(this.place)}),this.logs=C(o.listIcon,()=>t.openLogs(this.place)),this.stop=C(o.stopIcon,()=>{this.isStopping||t.stopEndpoint(this.server(),this.endpoint)});let n=f("div",{class:"nbserve-text"},this.open,this.condition),s=f("span",{class:"nbserve-dot","aria-hidden":"true"});this.element=f("li",{},s,n,this.logs,this.stop,this.traffic)}update(e){let t,n,s,r,o,i,a;this.endpoint=e,this.element.dataset.tone=x[e.state]??"broken",m(this.open,e.name),m(this.condition,(n=(t=e.workers.filter(e=>"worker"===e.role)).filter(e=>"READY"===e.state||"BUSY"===e.state).length,s=t.filter(e=>"HELD"===e.state).length,r=[e.state.toLowerCase(),j(`${n} of ${$(t.length,"worker")}`)],s&&r.push(j(`${s} held`)),r.join(", "))),m(this.traffic,(i=E((o=Object.entries(e.requests)).filter(([e])=>Number(e)>=400)),a=[$(E(o),"answer")],i&&a.push($(i,"error")),[...a,j(`${e.queued.toLocaleString("en")} queued`)].join(", "))),this.open.title=`Open the panel of ${e.name}${e.version?`, version ${e.version}`:""}`,T(this.logs,`Logs of ${e.name}`),T(this.stop,`Stop ${e.name}`),this.stop.setAttribute("aria-disabled",`${this.isStopping}`)}get isStopping(){return"STOPPING"===this.endpoint.state}get place(){return{name:this.endpoint.name,serverId:this.server().server_id}}}function C(e,t){let n=f("button",{type:"button",class:"nbserve-icon",onclick:t});return e.element({container:n,tag:"span",stylesheet:"listing",width:"16px",height:"16px"}),n}function T(e,t){e.title=t,e.setAttribute("aria-label",t)}class L extends v.Widget{api;refresh=C(o.refreshIcon,()=>void this.poll.refresh());failure=f("p",{role:"alert",class:"nbserve-failure",hidden:!0});empty=f("p",{class:"nbserve-empty",hidden:!0},"No endpoint is running. Start one from a cell: ",f("code",{},"%%serve NAME"));list=f("div",{class:"nbserve-servers",tabindex:-1});rows;poll;stopping=new Set;constructor(e,t){super(),this.api=e,this.id="nbserve-endpoints",this.addClass("nbserve-sidebar"),this.title.icon=h,this.title.caption="Endpoints (nbserve)",this.node.setAttribute("role","region"),this.node.setAttribute("aria-label","Endpoints"),T(this.refresh,"Refresh the endpoints"),this.node.append(f("header",{},f("h2",{},"Endpoints"),this.refresh),this.failure,this.empty,this.list);let n={...t,stopEndpoint:this.stopEndpoint.bind(this),stopServer:this.stopServer.bind(this)};this.rows=new b(this.list,e=>e.server_id,e=>new A(e,n)),this.poll=new u.Poll({name:"nbserve:endpoints",factory:()=>this.ask(),frequency:{interval:2e3,max:15e3,backoff:!0},standby:()=>!this.isVisible||document.hidden})}dispose(){this.poll.dispose(),super.dispose()}onAfterShow(){this.poll.refresh()}onActivateRequest(){(this.list.querySelector(".nbserve-open")??this.refresh).focus()}async ask(){try{this.render(await this.api.servers())}catch(e){throw this.tell(e.message),e}}render(e){this.tell(""),this.empty.hidden=e.length>0;let t=this.list.contains(document.activeElement);this.rows.update(e.map(e=>this.marked(e))),t&&!this.list.contains(document.activeElement)&&this.list.focus()}tell(e){this.failure.hidden=!e,m(this.failure,e),this.list.toggleAttribute("data-stale",!!e),e&&(this.empty.hidden=!0)}marked(e){let t=t=>this.stopping.has(e.server_id)||this.stopping.has(R({name:t,serverId:e.server_id})),n=e.endpoints.map(e=>t(e.name)?{...e,state:"STOPPING"}:e);return{...e,endpoints:n}}async stopEndpoint(e,t){let n=t.queued?` ${$(t.queued,"request")} in its queue will be answered first.`:"",s=`It answers no new requests, and its workers end.${n}`,r={name:t.name,serverId:e.server_id};await this.stop(`Stop ${t.name}?`,s,R(r),()=>this.api.stopEndpoint(r))}async stopServer(e){let t,n=`The server of ${k(e)}, process ${e.pid}, ends, and with it ${(t=e.endpoints.map(e=>e.name)).length?`${$(t.length,"endpoint")} (${t.join(", ")})`:"no endpoints"}.`;await this.stop("Stop the server?",n,e.server_id,()=>this.api.stopServer(e.server_id))}async stop(e,t,n,s){if((await (0,r.showDialog)({title:e,body:t,buttons:[r.Dialog.cancelButton(),r.Dialog.warnButton({label:"Stop"})]})).button.accept){this.stopping.add(n),this.poll.refresh();try{await s()}catch(e){await (0,r.showErrorMessage)("It was not stopped",e.message)}finally{this.stopping.delete(n),this.poll.refresh()}}}}function R(e){return`${e.serverId}/${e.name}`}var M=n(10),z=n.n(M),N=n(11),U=n.n(N),q=n(12),O=n.n(q),P=n(13),D=n.n(P),B=n(14),J=n.n(B),_=n(15),G=n.n(_),F=n(16),W={};W.styleTagTransform=G(),W.setAttributes=D(),W.insert=O().bind(null,"head"),W.domAPI=U(),W.insertStyleElement=J(),z()(F.A,W),F.A&&F.A.locals&&F.A.locals;let H="nbserve:show-endpoints",V="nbserve:open-panel",Y="nbserve:open-logs",Q={id:"nbserve:endpoints",description:"Lists the endpoints of this machine, and opens their panels and logs.",autoStart:!0,optional:[r.ICommandPalette,s.ILayoutRestorer],activate:function(e,t,n){var s;let i=new d,a=t=>n=>void e.commands.execute(t,{...n}),l=new L(i,{openPanel:a(V),openLogs:a(Y),notebooks:()=>Array.from(e.serviceManager.sessions.running(),e=>e.path)});for(let a of(e.shell.add(l,"left",{rank:250}),n?.add(l,l.id),e.commands.addCommand(H,{label:"Show Endpoints",icon:h,execute:()=>e.shell.activateById(l.id)}),t?.addItem({command:H,category:"nbserve"}),s=i,[{command:V,namespace:"nbserve-panel",icon:h,title:e=>e,make:e=>new y(s.baseUrl,e)},{command:Y,namespace:"nbserve-logs",icon:o.listIcon,title:e=>`${e}: logs`,make:e=>new g(s,e)}]))!function(e,t,n){let s=new r.WidgetTracker({namespace:n.namespace});e.commands.addCommand(n.command,{execute:t=>{let o={name:String(t.name),serverId:String(t.serverId)},i=s.find(({content:e})=>K(e.place)===K(o))??function(e,t){let n=e.make(t),s=new r.MainAreaWidget({content:n});return s.id=`${e.namespace}-${K(t)}`,s.title.label=e.title(t.name),s.title.icon=e.icon,s.title.closable=!0,s.toolbar.hide(),s}(n,o);s.has(i)||s.add(i),i.isAttached||e.shell.add(i,"main"),e.shell.activateById(i.id)}}),t?.restore(s,{command:n.command,args:({content:e})=>({...e.place}),name:({content:e})=>K(e.place)})}(e,n,a)}};function K(e){return`${e.serverId}-${e.name}`}}}]);